"""How image files become arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flowad_jax.errors import UserError

WHITE = 65535  # the largest value of 16 bits


def read_image(path: str | Path, white: int = WHITE) -> np.ndarray:
    """Reads the first frame of any file that Pillow can read.

    The EXIF orientation is applied. Grey is repeated, alpha is dropped (the stored colour
    counts, not its opacity), palettes and CMYK become RGB. Images of 16 bits are divided by
    ``white / 255`` and rounded, never clipped; pass 4095 for a 12-bit camera. Floating-point
    images must lie in [0, 1].

    Returns:
      (H, W, 3) uint8.

    Raises:
      UserError: the file is missing, damaged, too large or no image, or a value exceeds white.
    """
    pixels = decode(path)
    if pixels.dtype == np.uint8:
        return pixels
    full = full_scale(pixels, white)
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= full):  # also false for NaN
        option = "data.options.white must be its white level, 65535 at most"
        raise UserError(f"'{path}' has pixel values {low} to {high}, not 0 to {full}: {option}")
    grey = np.rint(pixels * (255.0 / full)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def decode(path: str | Path) -> np.ndarray:
    """Returns (H, W, 3) uint8, or (H, W) of another type for images of more than 8 bits."""
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file)
            if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
                return np.asarray(upright)
            if upright.mode in ("P", "PA", "La", "RGBa"):  # no direct way to RGB, or a warning
                upright = upright.convert("RGBA")
            return np.asarray(upright.convert("RGB"))
    except Exception as error:  # decoders raise nearly any type on damaged files
        raise unreadable(path, error) from error


def full_scale(pixels: np.ndarray, white: int) -> float:
    """The pixel value that is shown as white."""
    return 1.0 if pixels.dtype.kind == "f" else float(white)


def unreadable(path: str | Path, error: Exception) -> UserError:
    """Puts whatever Pillow raised for a file into one line with a remedy."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        why = f"it has more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller"
    elif isinstance(error, UnidentifiedImageError):
        why = "Pillow knows no such image format; replace or remove it"
    elif isinstance(error, OSError) and error.strerror:
        why = f"{error.strerror}; check the path and its permissions"
    else:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        why = f"the file is damaged ({reason}); replace or remove it"
    return UserError(f"cannot read '{path}': {why}")
