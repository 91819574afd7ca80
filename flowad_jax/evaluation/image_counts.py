"""What every image adds to the pixel curves of its test set, at a few hundred thresholds.

The curves of any selection of images are sums of these rows, so that a thousand resampled test sets
cost one product of matrices. The exact figures come from ``aupro.py``, which takes every score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy import ndimage

from flowad_jax.evaluation import aupro
from flowad_jax.evaluation.aupro import Images
from flowad_jax.types import Defect

SAMPLE = 1 << 20  # pixels of either kind, at most, from which thresholds are taken
# Rates at which a threshold lies: dense where AUPRO looks.
FALSE_RATES = np.concatenate([np.linspace(0, limit, 101) for limit in (0.05, 0.3, 1)])
TRUE_RATES = np.linspace(0, 1, 201)


class ImageCounts(NamedTuple):
    """Counts of N images at or above K falling thresholds; the last one takes every pixel.

    Attributes:
      false: (N, K) defect-free pixels.
      true: (N, K) defect pixels.
      overlap: (N, K) sum over the image's 8-connected defect regions of the fraction covered.
      regions: (N,) number of these regions.
    """

    false: Float32[np.ndarray, "N K"]
    true: Float32[np.ndarray, "N K"]
    overlap: Float32[np.ndarray, "N K"]
    regions: Int[np.ndarray, " N"]


def count(masks: Images, maps: Images) -> ImageCounts:
    """Counts the pixels and regions of every image; 12 bytes per image and threshold.

    Args:
      masks: N times (H, W) bool, true on defects.
      maps: N times (H, W) finite anomaly maps.
    """
    levels, rows = _thresholds(masks, maps), []
    for mask, values in zip(masks, maps, strict=True):
        region, number = ndimage.label(mask, structure=aupro.EIGHT_CONNECTED)
        shares = 1 / np.bincount(region.ravel())[region[mask]]
        found, free = values[mask], values[~mask]
        sums = above(free, levels), above(found, levels), above(found, levels, shares)
        rows.append((*_narrow(*sums), number))
    return ImageCounts(*map(np.stack, zip(*rows, strict=True)))


def count_defects(defects: Sequence[Sequence[Defect]], maps: Sequence[np.ndarray]) -> ImageCounts:
    """Counts single defects in the place of regions; their overlap saturates, see ``spro.py``.

    Args:
      defects: of each image.
      maps: N finite anomaly maps of the sizes of their masks.
    """
    masks = [
        np.logical_or.reduce([defect.mask for defect in own], initial=False)
        | np.zeros(m.shape, bool)
        for own, m in zip(defects, maps, strict=True)
    ]
    levels, rows = _thresholds(masks, maps), []
    for own, mask, values in zip(defects, masks, maps, strict=True):
        found = (above(values[one.mask], levels) / enough(one) for one in own)
        overlap = sum((np.minimum(share, 1) for share in found), np.zeros(len(levels)))
        sums = above(values[~mask], levels), above(values[mask], levels), overlap
        rows.append((*_narrow(*sums), len(own)))
    return ImageCounts(*map(np.stack, zip(*rows, strict=True)))


def _narrow(*sums: Float[np.ndarray, " K"]) -> list[Float32[np.ndarray, " K"]]:
    return [one.astype(np.float32) for one in sums]


def enough(defect: Defect) -> int:
    """Pixels of a defect that have to be found for it to count as found, at least one."""
    area = int(np.count_nonzero(defect.mask))
    wanted = defect.saturation * area if defect.relative else min(defect.saturation, area)
    return max(1, int(wanted))


def _thresholds(masks: Images, maps: Images) -> Float[np.ndarray, " K"]:
    """Falling scores at which the rates of false and of true pixels take equal steps."""
    stride = 1 + sum(mask.size for mask in masks) // SAMPLE
    pairs = list(zip(masks, maps, strict=True))
    levels = [np.array([-np.inf])]
    for rates, wanted in ((FALSE_RATES, False), (TRUE_RATES, True)):
        sample = np.concatenate([values[mask == wanted][::stride] for mask, values in pairs])
        if sample.size:
            levels.append(np.quantile(sample, 1 - rates, method="inverted_cdf"))
    return np.unique(np.concatenate(levels))[::-1]


def above(
    values: Float[np.ndarray, " n"],
    levels: Float[np.ndarray, " K"],
    weights: Float[np.ndarray, " n"] | None = None,
    *,
    or_at: bool = True,
) -> Float[np.ndarray, " K"]:
    """The number, or the weight, of the values above each of the falling levels, or at it."""
    rising = levels[::-1]
    passed = len(levels) - np.searchsorted(rising, values, side="right" if or_at else "left")
    return np.cumsum(np.bincount(passed, weights, len(levels) + 1)[:-1], dtype=float)
