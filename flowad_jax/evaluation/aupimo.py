"""AUPIMO: how much of each defect is found while normal images stay nearly free of false positives.

Bertoldo, Ameln, Vaidya, Akcay: "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High
Speed and Low Tolerance", BMVC 2024. The false positive rate is that of normal images alone, shared
by all anomalous images; each of these has a recall of its own, averaged over the logarithm of the
rate.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from flowad_jax.errors import UserError
from flowad_jax.evaluation.aupro import Images

BOUNDS = (1e-5, 1e-4)


def aupimo(
    masks: Images, maps: Images, bounds: tuple[float, float] = BOUNDS
) -> Float[np.ndarray, " N"]:
    """Returns the area of every image, from 0 to 1, and NaN for images without a defect.

    The recall at a rate is the best that some threshold reaches without exceeding the rate: exact,
    whatever the number of pixels. Memory beside the arguments: a share of ``bounds[1]`` of the
    pixels of all normal images, for each of these.

    Args:
      masks: N times (H, W) bool, true on defects; an image without is normal.
      maps: anomaly maps of the sizes of the masks.
      bounds: of the mean false positive rate of normal images.

    Raises:
      UserError: bounds that are not 0 < low < high <= 1, or no normal image.
    """
    low, high = bounds
    if not 0 < low < high <= 1:
        raise UserError(f"AUPIMO bounds {bounds}: 0 < low < high <= 1 is needed")
    marked = [bool(np.any(mask)) for mask in masks]
    normal = [values for values, has in zip(maps, marked, strict=True) if not has]
    if not normal:
        raise UserError("AUPIMO: the test set has no normal image to measure false positives on")
    levels, widths = _segments(normal, low, high)
    areas = [
        _recall(values[mask], levels) @ widths if has else math.nan
        for mask, values, has in zip(masks, maps, marked, strict=True)
    ]
    return np.array(areas)


def _segments(
    normal: list[Float[np.ndarray, "H W"]], low: float, high: float
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Scores that pixels have to exceed, and on which share of the log axis that is the limit."""
    scores, weights = [], []
    for values in normal:
        # No rate up to `high` lets more pixels of one image through than this.
        most = min(values.size, math.ceil(high * len(normal) * values.size) + 1)
        scores.append(np.partition(values, -most, axis=None)[-most:])
        weights.append(np.full(most, 1 / (len(normal) * values.size)))
    levels, which = np.unique(np.concatenate(scores), return_inverse=True)
    rates = np.cumsum(np.bincount(which, np.concatenate(weights))[::-1])
    starts, ends = np.concatenate([[0], rates]), np.concatenate([rates, [math.inf]])
    width = np.log(np.clip(ends, low, high)) - np.log(np.clip(starts, low, high))
    falling = np.append(levels[::-1], -math.inf)
    used = width > 0
    return falling[used], width[used] / math.log(high / low)


def _recall(
    defect: Float[np.ndarray, " n"], levels: Float[np.ndarray, " K"]
) -> Float[np.ndarray, " K"]:
    """The share of an image's defect pixels above each level."""
    return 1 - np.searchsorted(np.sort(defect), levels, side="right") / defect.size


def mean(areas: Float[np.ndarray, " N"]) -> float:
    """Returns the mean over anomalous images; NaN if there is none."""
    known: Bool[np.ndarray, " N"] = ~np.isnan(areas)
    return float(areas[known].mean()) if known.any() else math.nan
