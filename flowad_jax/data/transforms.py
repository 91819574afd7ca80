"""From a photograph to the encoder's input: resize, rotate, sharpen, normalise.

Defaults are those of the CFLOW-AD reference; each thing that it does differently from what one
would expect is a named choice here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance

from flowad_jax.errors import UserError
from flowad_jax.lookup import nearest

FILTERS = {name.lower(): value for name, value in Image.Resampling.__members__.items()}
AT_ONCE = 2**24  # pixels of an image that is resized as a whole
_NORMS = ("encoder", "stc", "mean_as_std")

Triple = tuple[float, float, float]


def resampling(name: str) -> Image.Resampling:
    """Returns the Pillow filter of a name such as ``"lanczos"``, which the reference uses."""
    if name not in FILTERS:
        raise UserError(f"data.filter={name!r} is unknown: {nearest(str(name), FILTERS)}")
    return FILTERS[name]


def resize_image(image: np.ndarray, size: int, filter: str = "lanczos") -> np.ndarray:
    """Scales (H, W, 3) uint8 to exactly (size, size, 3); the aspect ratio is not kept.

    Rows come first where there are more than `AT_ONCE` pixels, as in `images.read_resized`. Else
    Pillow chooses, and rounds between both.
    """
    if image.shape[0] * image.shape[1] > AT_ONCE:
        narrow = Image.fromarray(image).resize((size, image.shape[0]), resampling(filter))
        image = np.asarray(narrow)
    resized = Image.fromarray(image).resize((size, size), resampling(filter))
    return np.asarray(resized)


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Scales (H, W) bool to (size, size) by the nearest pixel."""
    resized = Image.fromarray(mask.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
    return np.asarray(resized).astype(bool)


def rotate(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Turns an image or a mask counter-clockwise by the nearest pixel; corners become black."""
    if pixels.dtype == bool:
        return rotate(pixels.astype(np.uint8), degrees).astype(bool)
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.NEAREST))


def sharpen(image: np.ndarray, factor: float = 2.0) -> np.ndarray:
    """Moves (H, W, 3) uint8 away from its smoothed self; 1 leaves it, 2 is what SSNF uses."""
    return np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(factor))


def normalize(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Returns ``(image / 255 - mean) / std`` of (..., 3) uint8 in float32."""
    scaled = image.astype(np.float32) / np.float32(255)
    return (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def norm(name: str, mean: Triple, std: Triple) -> tuple[Triple, Triple]:
    """Returns the mean and std that a named normalisation uses for an encoder.

    Args:
      name: ``"encoder"`` takes the encoder's own; ``"stc"`` is what the CFLOW-AD reference uses
        on ShanghaiTech; ``"mean_as_std"`` is its mistake for encoders from timm, which divides
        by the mean.
      mean: the encoder's own.
      std: the encoder's own.

    Raises:
      UserError: unknown name.
    """
    if name == "encoder":
        return mean, std
    if name == "stc":
        return (0.5, 0.5, 0.5), (0.225, 0.225, 0.225)
    if name == "mean_as_std":
        return mean, mean
    raise UserError(f"data.norm={name!r} is unknown: {nearest(str(name), _NORMS)}")
