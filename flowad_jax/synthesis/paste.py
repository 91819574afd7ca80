"""Cutting, recolouring, rotating and pasting small patches, as CutPaste and SANFlow do."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance

from flowad_jax.synthesis.types import random_integer

_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def cut(image: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Cuts ``size`` (height, width) pixels from anywhere in an image."""
    height, width = size
    top = random_integer(rng, 0, image.shape[0] - height + 1)
    left = random_integer(rng, 0, image.shape[1] - width + 1)
    return image[top : top + height, left : left + width]


def colour_jitter(pixels: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Changes brightness, contrast, saturation and hue in random order.

    Args:
      pixels: (h, w, 3) uint8.
      strength: j in [0, 0.5]; the first three are multiplied by U(1-j, 1+j), the hue is turned by
        U(-j, j) of the circle.
      rng: source of all randomness.
    """
    factors, turn = rng.uniform(1 - strength, 1 + strength, 3), rng.uniform(-strength, strength)
    image = Image.fromarray(pixels)
    for step in rng.permutation(4):
        if step == 3:
            image = _turn_hue(image, turn)
        else:
            image = _ENHANCERS[step](image).enhance(float(factors[step]))
    return np.asarray(image)


def _turn_hue(image: Image.Image, turn: float) -> Image.Image:
    hsv = np.array(image.convert("HSV"))
    # Whole steps of 256, cut off towards 0 as torchvision does; they wrap around, as hues do.
    hsv[..., 0] += np.uint8(int(turn * 255) % 256)
    return Image.fromarray(hsv, "HSV").convert("RGB")


def rotate(pixels: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Turns a patch by the nearest pixel on a canvas that holds all of it.

    Returns:
      The pixels (h', w', 3) uint8, and which of them belong to the patch, (h', w') bool.
    """
    opaque = Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]))
    turned = np.asarray(opaque.rotate(degrees, Image.Resampling.NEAREST, expand=True))
    return turned[..., :3], turned[..., 3] > 0


def paste(
    target: np.ndarray, pixels: np.ndarray, inside: np.ndarray, top: int, left: int
) -> tuple[np.ndarray, np.ndarray]:
    """Copies a patch onto an image; what does not fit is cut off.

    Returns:
      The image (H, W, 3) uint8 and where the patch is, (H, W) float32, 0 or 1.
    """
    image, mask = target.copy(), np.zeros(target.shape[:2], np.float32)
    rows, columns = slice(top, top + inside.shape[0]), slice(left, left + inside.shape[1])
    height, width = mask[rows, columns].shape
    inside = inside[:height, :width]
    image[rows, columns][inside] = pixels[:height, :width][inside]
    mask[rows, columns] = inside
    return image, mask
