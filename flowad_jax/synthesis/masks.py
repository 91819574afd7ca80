"""Soft masks of SANFlow: small disks and rotated bars, drawn when they are needed.

The reference reads 10,000 mask files, which were never released. These have their statistics;
what its generator of bars does not survive, one longer than the canvas, is shortened.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from flowad_jax.synthesis.types import integer

_CANVAS, _FINAL, _MARGIN = 128, 256, 2  # pixels


def soft_mask(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draws a mask.

    Args:
      kind: ``"circle"`` or ``"rectangle"``.
      shape: height and width of the mask.
      rng: source of all randomness.

    Returns:
      ``shape`` float32 in [0, 1].
    """
    canvas = Image.fromarray(_circle(rng) if kind == "circle" else _bar(rng))
    # Pillow leaves the outermost two pixels as they are, so the border gets a margin meanwhile.
    blurred = ImageOps.crop(ImageOps.expand(canvas, _MARGIN).filter(ImageFilter.BLUR), _MARGIN)
    soft = blurred.resize((_FINAL, _FINAL), Image.Resampling.BICUBIC)
    resized = np.asarray(soft.resize(shape[::-1], Image.Resampling.BILINEAR))
    return np.ascontiguousarray(flip(resized, rng), np.float32) / np.float32(255)


def flip(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrors along either axis with probability 1/2 each."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            pixels = np.flip(pixels, axis)
    return pixels


def _circle(rng: np.random.Generator) -> np.ndarray:
    x, y = rng.uniform(10, 118, 2)
    radius = rng.uniform(10, 15)
    grid = np.arange(_CANVAS)
    inside = np.hypot(grid[:, None] - y, grid - x) <= radius
    return inside.astype(np.uint8) * 255


def _bar(rng: np.random.Generator) -> np.ndarray:
    height, width = int(rng.integers(32, 128)), int(rng.integers(8, 23))
    bar = Image.new("L", (width, height), 255)
    bar = bar.rotate(rng.uniform(-90, 90), Image.Resampling.NEAREST, expand=True)
    longest = _CANVAS - 1
    if max(bar.size) > longest:
        wide, tall = bar.size
        bar = bar.resize((min(wide, longest), min(tall, longest)), Image.Resampling.BICUBIC)
    canvas = np.zeros((_CANVAS, _CANVAS), np.uint8)
    top, left = integer(rng, 0, _CANVAS - bar.height), integer(rng, 0, _CANVAS - bar.width)
    canvas[top : top + bar.height, left : left + bar.width] = np.asarray(bar)
    return canvas
