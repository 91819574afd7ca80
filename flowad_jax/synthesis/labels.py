"""Per-pixel labels of NSA: how much of an anomaly a pixel is."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage, special

LABELS = ("binary", "intensity", "logistic-intensity", "continuous")
_RADIUS = 5  # pixels of the disk that smooths intensities


class Change(NamedTuple):
    """What the blending did.

    Attributes:
      before, after: (H, W, 3) uint8, the image without and with its anomaly.
      area: (H, W) uint8, 1 where a label is wanted.
      factor: share of the patch in an interpolation, else 1.
    """

    before: np.ndarray
    after: np.ndarray
    area: np.ndarray
    factor: float


def binary(change: Change, tolerance: float, scale: float) -> np.ndarray:
    """Where the mean of RGB changed by more than ``tolerance`` grey levels, without specks.

    Args:
      change: what was blended.
      tolerance: grey levels that do not count.
      scale: size of the 5 x 5 median filter relative to the published one.

    Returns:
      (H, W) uint8, 0 or 1.
    """
    mask = (_intensity(change, change.area) > tolerance).astype(np.uint8)
    return cv2.medianBlur(mask, odd(5, scale))


def label(
    mode: str, change: Change, mask: np.ndarray, logistic: tuple[float, float], scale: float
) -> np.ndarray:
    """Turns the binary label into another one (Schlüter et al., ECCV 2022, section 3).

    Args:
      mode: ``"binary"``; ``"intensity"``, the change as a share of 255 grey levels;
        ``"logistic-intensity"``, a logistic function of it; ``"continuous"``, the share of the
        patch in an interpolation (1 for other blends).
      change: what was blended.
      mask: (H, W) uint8, the binary label.
      logistic: slope and midpoint in grey levels.
      scale: size of the smoothing disk relative to the published radius of 5 pixels.

    Returns:
      (H, W) float32 in [0, 1].
    """
    if mode == "binary":
        return mask.astype(np.float32)
    if mode == "continuous":
        return mask * np.float32(change.factor)
    smooth = _smooth(_intensity(change, mask), mask, max(round(_RADIUS * scale), 1))
    if mode == "intensity":
        return smooth / np.float32(255)
    slope, midpoint = logistic
    return mask * special.expit(np.float32(slope) * (smooth - np.float32(midpoint)))


def odd(size: int, scale: float) -> int:
    """The odd number next to ``size * scale``, for the side of a filter."""
    return 2 * round((size * scale - 1) / 2) + 1 if size * scale > 1 else 1


def _intensity(change: Change, mask: np.ndarray) -> np.ndarray:
    """Mean over RGB of the change inside a mask, (H, W) float32 in grey levels."""
    return cv2.absdiff(change.before, change.after).mean(axis=-1, dtype=np.float32) * mask


def _smooth(values: np.ndarray, mask: np.ndarray, radius: int) -> np.ndarray:
    """Median over a disk, computed only where it can differ from zero."""
    result = np.zeros_like(values)
    x, y, width, height = cv2.boundingRect(mask)
    rows, columns = (
        slice(max(start - 2 * radius, 0), start + size + 2 * radius)
        for start, size in ((y, height), (x, width))
    )
    grid = np.arange(-radius, radius + 1)
    disk = grid[:, None] ** 2 + grid**2 <= radius**2
    result[rows, columns] = ndimage.median_filter(values[rows, columns], footprint=disk)
    return result
