"""Where NSA cuts a patch, how it scales it and where it puts it.

Draws follow Schlüter et al. (ECCV 2022), section 3, in the numbers of the SSNF settings. All
functions return None after too many refused draws.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from flowad_jax.synthesis.nsa_constants import Constants, Pair
from flowad_jax.synthesis.types import random_integer

Gamma = tuple[float, float, float]


class Patch(NamedTuple):
    """A rectangle of the source.

    Attributes:
      pixels: (h, w, 3) uint8.
      object: (h, w) uint8, 1 on the object; all 1 where the category has no masks.
      centre: row and column of its middle.
    """

    pixels: np.ndarray
    object: np.ndarray
    centre: tuple[int, int]


def object_mask(image: np.ndarray, background: tuple[Pair, ...], kernel: int) -> np.ndarray:
    """Finds the object by its brightness.

    Args:
      image: (H, W, 3) uint8.
      background: see ``Constants``.
      kernel: side of the median filter that removes specks, odd.

    Returns:
      (H, W) uint8, 1 on the object; all 1 without background pairs.
    """
    mask = np.ones(image.shape[:2], np.uint8)
    if not background:
        return mask
    brightness = image.mean(axis=-1)
    for level, tolerance in background:
        mask &= np.abs(brightness - level) > tolerance
    return cv2.medianBlur(mask, kernel)


def limits(shape: tuple[int, ...], constants: Constants) -> list[tuple[int, int]]:
    """Bounds in pixels along rows and along columns."""
    pairs = zip(shape, (constants.rows, constants.columns), strict=False)
    return [(round(low * side), round(high * side)) for side, (low, high) in pairs]


def cut(
    source: np.ndarray,
    mask: np.ndarray,
    constants: Constants,
    gamma: Gamma | None,
    draws: int,
    rng: np.random.Generator,
) -> Patch | None:
    """Cuts a random rectangle that shows enough of the object.

    Args:
      source: (H, W, 3) uint8.
      mask: (H, W) uint8, 1 on the object.
      constants: bounds of the category.
      gamma: shape, scale and offset of the half-sides as shares of the image sides; None draws
        them uniformly between their bounds.
      draws: places to try.
      rng: source of all randomness.
    """
    (height, width), bounds = mask.shape, limits(mask.shape, constants)
    half = [_half(s, *b, gamma, rng) for s, b in zip(mask.shape, bounds, strict=True)]
    if min(half) < 1:
        return None
    (low_row, _), (low_column, _) = bounds
    for _ in range(draws):
        row = random_integer(rng, low_row, height - low_row)
        column = random_integer(rng, low_column, width - low_column)
        place = (
            slice(max(row - half[0], 0), row + half[0]),
            slice(max(column - half[1], 0), column + half[1]),
        )
        if mask[place].mean() > constants.min_object:
            return Patch(source[place], mask[place], (row, column))
    return None


def _half(side: int, low: int, high: int, gamma: Gamma | None, rng: np.random.Generator) -> int:
    if gamma is None:
        return random_integer(rng, low, high)
    shape, scale, offset = gamma
    return int(np.clip((offset + rng.gamma(shape, scale)) * side, low, high))


def scaled(
    patch: Patch, shape: tuple[int, ...], constants: Constants, rng: np.random.Generator
) -> Patch:
    """Scales a patch by a factor from N(1, 1/2), within the bounds of the category."""
    (low_h, high_h), (low_w, high_w) = limits(shape, constants)
    factor = np.clip(rng.normal(1, 0.5), *constants.factors)
    h, w = patch.object.shape
    height = np.clip(factor * h, low_h, high_h)
    width = np.clip(int(height / h * w), low_w, high_w)
    height = np.clip(int(width / w * h), low_h, high_h)
    size = (max(int(width), 1), max(int(height), 1))
    return Patch(cv2.resize(patch.pixels, size), cv2.resize(patch.object, size), patch.centre)


def place(
    patch: Patch, mask: np.ndarray, constants: Constants, draws: int, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Draws the top row and left column of a place that suits the patch.

    Args:
      patch: what is placed.
      mask: (H, W) uint8, 1 on the object of the target.
      constants: asks that enough of the patch is object, and that enough of that lands on object.
      draws: places to try.
      rng: source of all randomness.
    """
    (h, w), (height, width) = patch.object.shape, mask.shape
    needed = constants.min_overlap * np.count_nonzero(patch.object)
    if h + 2 > height or w + 2 > width or not patch.object.mean() > constants.min_object:
        return None
    for _ in range(draws):
        top = random_integer(rng, h // 2 + 1, height - h // 2 - 1) - h // 2
        left = random_integer(rng, w // 2 + 1, width - w // 2 - 1) - w // 2
        if np.count_nonzero(patch.object & mask[top : top + h, left : left + w]) > needed:
            return top, left
    return None


def same_place(patch: Patch, shape: tuple[int, ...]) -> tuple[int, int]:
    """Top row and left column that put a patch where it was cut, moved inwards if it grew."""
    (row, column), (h, w), (height, width, *_) = patch.centre, patch.object.shape, shape
    return min(max(row - h // 2, 0), height - h), min(max(column - w // 2, 0), width - w)
