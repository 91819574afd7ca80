"""Images that a program holds, as (H, W, 3) uint8: read and rounded as those of files are."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from flowad_jax.data.decoded_image import ORIENTATION, as_array, upright
from flowad_jax.data.images import WHITE, full_scale, rgb, to_8_bits, white_level
from flowad_jax.errors import UserError

TAKEN = (
    "give the path of a file, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4) of uint8, "
    "uint16 or floats from 0 to 1"
)


def to_pixels(image: Any, white: int = WHITE, name: str = "an image") -> np.ndarray:
    """Returns an image as it would be read from a file of the same values, (H, W, 3) uint8.

    Args:
      image: a PIL image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), of NumPy, JAX or
        whatever else NumPy understands. A file that Pillow opened is turned upright by its tag.
      white: the value of uint16 that is shown as white; floats lie in [0, 1] unless it is given.
      name: of the image in messages.

    Raises:
      UserError: it is no such image.
    """
    pixels = _stored(image, name)
    if not pixels.size:
        raise UserError(f"{name} is {describe(image)}: it has no pixels")
    if pixels.dtype != np.uint8:
        full, low, high = full_scale(pixels, white), pixels.min(), pixels.max()
        if not (low >= 0 and high <= full):  # NaN is neither
            found = "NaN" if np.isnan(low) else f"values from {low:.6g} to {high:.6g}"
            fix = f"scale it to 0 to {full:g}"
            if low >= 0 and (level := white_level(high)):
                fix += f", or train with white={level}"
            raise UserError(f"{name} is {describe(image)} and holds {found}: {fix}")
        pixels = to_8_bits(pixels, full)
    return rgb(np.ascontiguousarray(pixels))


def is_pixels(image: Any) -> bool:
    """Whether something is an image, or a stack of them, that is no file."""
    return isinstance(image, Image.Image) or (
        hasattr(image, "__array__") and hasattr(image, "ndim")
    )


def describe(value: Any) -> str:
    """What a value is, for messages."""
    if isinstance(value, Image.Image):
        return f"a PIL image of mode {value.mode}"
    if is_pixels(value) and hasattr(value, "dtype"):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, str | os.PathLike):
        return f"'{os.fspath(value)}'"
    return f"of type {type(value).__name__}"


def _stored(image: Any, name: str) -> np.ndarray:
    """The values of an image, (H, W) or (H, W, 3), with all their bits."""
    if isinstance(image, Image.Image):
        pixels = as_array(image)
        opened = isinstance(image, ImageFile.ImageFile)  # what was derived of it is taken as it is
        return upright(pixels, image.getexif().get(ORIENTATION, 1)) if opened else pixels
    try:
        pixels = np.asarray(image) if is_pixels(image) else np.zeros(0)
    except (RuntimeError, TypeError, ValueError) as error:  # a tensor on another device
        raise UserError(f"{name} is {describe(image)}: {error}") from error
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        fix = "channels come last, as image.transpose(1, 2, 0) has them"
        raise UserError(f"{name} is {describe(image)}: {fix}")
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,), (4,)):
        raise UserError(f"{name} is {describe(image)}: {TAKEN}")
    if pixels.dtype.name in ("float16", "bfloat16"):
        pixels = pixels.astype(np.float32)
    if pixels.dtype.name not in ("uint8", "uint16", "float32", "float64"):
        raise UserError(f"{name} is {describe(image)}: {TAKEN}")
    if pixels.shape[2:] == (1,):
        return pixels[..., 0]
    return pixels if pixels.ndim == 2 else pixels[..., :3]
