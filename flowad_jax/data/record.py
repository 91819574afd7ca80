"""What a data set hands out, and how image and mask files become arrays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flowad_jax.errors import UserError

GOOD = "good"
UNKNOWN = "unknown"  # of images whose label nobody publishes
WHITE = 65535  # the largest value of 16 bits


class Record(NamedTuple):
    """One image with all that is known about it, at its own resolution.

    Attributes:
      image: (H, W, 3) uint8; grey images have three equal channels.
      mask: (H, W) bool, true on defects; all false if the data set has no masks.
      label: 0 for good, 1 for anomalous, -1 for unknown.
      kind: ``"good"``, the name of the defect's folder, or ``"unknown"``.
      path: the file, or a made-up name for images that have none.
    """

    image: np.ndarray
    mask: np.ndarray
    label: int
    kind: str
    path: str


class Source(Protocol):
    """One split of one category; knows labels without decoding, decodes a record on demand.

    Every module of this package that is a data set exports
    ``build(root, category, split, **options) -> Source``, ``categories(root) -> list[str]`` and
    its description, ``ABOUT``.
    ``source[i]`` is called from several threads at once.

    Attributes:
      labels: (N,) int32.
      kinds, paths: N strings each.
      has_masks: whether pixel metrics make sense.
    """

    labels: np.ndarray
    kinds: list[str]
    paths: list[str]
    has_masks: bool

    def __len__(self) -> int:
        """Number of records."""

    def __getitem__(self, index: int) -> Record:
        """Decodes one record."""

    def describe(self) -> dict[str, Any]:
        """Counts for logs and results, see ``count``."""


def count(source: Source) -> dict[str, Any]:
    """Returns ``{"images", "good", "anomalous", "masks", "kinds": {kind: number}}``."""
    return {
        "images": len(source),
        "good": int(np.sum(source.labels == 0)),
        "anomalous": int(np.sum(source.labels == 1)),
        "masks": source.has_masks,
        "kinds": dict(sorted(Counter(source.kinds).items())),
    }


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
    pixels = _decode(path)
    if pixels.dtype == np.uint8:
        return pixels
    full = _full_scale(pixels, white)
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= full):  # also false for NaN
        option = "data.options.white must be its white level, 65535 at most"
        raise UserError(f"'{path}' has pixel values {low} to {high}, not 0 to {full}: {option}")
    grey = np.rint(pixels * (255.0 / full)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def read_mask(path: str | Path, threshold: int = 0) -> np.ndarray:
    """Reads a mask; a pixel is a defect where its largest colour exceeds the threshold.

    Binarised here, before any resize. The threshold is on the scale of 8-bit images: 0 is the
    rule of the CFLOW-AD reference (value is not zero), 127 suits masks saved as JPEG.

    Returns:
      (H, W) bool.

    Raises:
      UserError: as ``read_image``.
    """
    pixels = _decode(path)
    if pixels.dtype == np.uint8:
        red, green, blue = np.moveaxis(pixels, -1, 0)
        # Twenty times as fast as a maximum over an axis of three.
        return np.maximum(np.maximum(red, green), blue) > threshold
    return pixels > threshold / 255 * _full_scale(pixels, WHITE)


def _decode(path: str | Path) -> np.ndarray:
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


def _full_scale(pixels: np.ndarray, white: int) -> float:
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
