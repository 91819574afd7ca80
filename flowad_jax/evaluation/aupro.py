"""All pixel-level curves of a test set from one sort.

Every distinct score is a threshold. Sorting the pixels once, each with the number of the defect
region it lies in, gives at every threshold the false positives, the true positives and the mean
covered fraction of the regions (PRO, "per-region overlap"). ROC, precision-recall and PRO curves
are read off the same pass, in pieces, so that memory stays at 8 bytes per pixel (float32).

PRO: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129 (2021), section 5.1.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)
CHUNK = 1 << 18  # pixels per piece: its arrays stay in the cache
LOW_HALF = np.uint64(0xFFFFFFFF)

Images = np.ndarray | Sequence[np.ndarray]  # (N, H, W), or N arrays of any sizes (H, W)


class Points(NamedTuple):
    """Consecutive thresholds from high to low; the first point ends the previous piece.

    Attributes:
      false_positives: number of defect-free pixels at or above the threshold.
      true_positives: number of defect pixels at or above it.
      overlap: mean over all regions of the fraction at or above it.
    """

    false_positives: np.ndarray
    true_positives: np.ndarray
    overlap: np.ndarray


def sweep(masks: Images, scores: Images) -> Iterator[Points]:
    """Yields the points of all thresholds, equal scores being one threshold.

    Args:
      masks: N times (H, W) bool, true on defects; 8-connected regions of all images count alike.
      scores: N times (H, W) finite scores. float32 is sorted as it is; any other type is exact
        too, at the price of a second sort.
    """
    ranked, areas = _rank(masks, scores)
    weights = np.concatenate([[0.0], 1.0 / (areas * len(areas))])  # region 0: defect-free
    true_before, overlap_before = 0, 0.0
    last: tuple[float, ...] = (0, 0, 0.0)
    for start in range(0, ranked.size, CHUNK):
        part = ranked[start : start + CHUNK]
        region = (part & LOW_HALF).astype(np.intp)
        true = true_before + np.cumsum(region > 0)
        overlap = overlap_before + np.cumsum(weights[region])
        false = np.arange(start + 1, start + 1 + part.size) - true
        ends = _last_of_ties(ranked, start, part.size)
        piece = (false[ends], true[ends], np.minimum(overlap[ends], 1.0))
        points = Points(*(np.concatenate([[a], b]) for a, b in zip(last, piece, strict=True)))
        yield points
        true_before, overlap_before = int(true[-1]), float(overlap[-1])
        last = tuple(array[-1] for array in points)


def area_below(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Area under the curve (x, y) for x up to ``limit``, cut there by linear interpolation."""
    inside = int(np.searchsorted(x, limit, side="right"))
    if inside == 0:
        return 0.0
    area = float(np.trapezoid(y[:inside], x[:inside]))
    if inside < len(x):
        width = limit - x[inside - 1]
        slope = (y[inside] - y[inside - 1]) / (x[inside] - x[inside - 1])
        area += float(width * (y[inside - 1] + 0.5 * width * slope))
    return area


def _rank(masks: Images, scores: Images) -> tuple[np.ndarray, np.ndarray]:
    """Sorts all pixels by falling score.

    Returns:
      (pixels,) uint64 with the rank of the score in the high half and the region number (0 for
      defect-free pixels) in the low half, and the (K,) areas of the regions in pixels.
    """
    single = all(values.dtype == np.float32 for values in scores)
    ordered = map(_falling_bits, scores) if single else _dense_ranks(scores)
    ranked = np.empty(sum(mask.size for mask in masks), np.uint64)
    areas = [np.zeros(0, np.int64)]
    start, count = 0, 0
    for mask, ranks in zip(masks, ordered, strict=True):
        region, found = ndimage.label(mask, structure=EIGHT_CONNECTED)
        areas.append(np.bincount(region.ravel(), minlength=found + 1)[1:])
        part = ranked[start : start + mask.size].reshape(mask.shape)
        part[:] = ranks
        part <<= np.uint64(32)
        part |= np.where(mask, region + count, 0).astype(np.uint64)
        start, count = start + mask.size, count + found
    ranked.sort()
    return ranked, np.concatenate(areas)


def _falling_bits(score: np.ndarray) -> np.ndarray:
    """uint32 whose order is the reverse of the order of the finite float32 scores."""
    bits = (score + np.float32(0)).view(np.uint32)  # the sum turns -0 into 0, which it equals
    return np.where(bits >> 31, bits, np.uint32(0x7FFFFFFF) - bits)


def _dense_ranks(scores: Images) -> Iterator[np.ndarray]:
    """Yields, image by image, the ranks of the distinct scores, 0 for the highest of all."""
    if isinstance(scores, np.ndarray):
        flat = scores.reshape(-1)
    else:
        flat = np.concatenate([image.ravel() for image in scores])
    values, rising = np.unique(flat, return_inverse=True)
    ranks = (len(values) - 1 - rising).astype(np.uint32)
    start = 0
    for image in scores:
        yield ranks[start : start + image.size].reshape(image.shape)
        start += image.size


def _last_of_ties(ranked: np.ndarray, start: int, size: int) -> np.ndarray:
    """Which pixels of a piece are the last ones of their score in the whole set."""
    here = ranked[start : start + size] >> np.uint64(32)
    following = ranked[start + 1 : start + size + 1] >> np.uint64(32)
    is_last = np.ones(size, dtype=bool)
    is_last[: following.size] = here[: following.size] != following
    return is_last
