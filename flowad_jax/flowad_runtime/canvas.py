"""The rectangle of pixels that the detector sees of an image, and its map brought back.

Sizes are (height, width) in pixels throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from .errors import UserError

FILTERS = {name.lower(): value for name, value in Image.Resampling.__members__.items()}
FITS = ("stretch", "crop", "pad")
AT_ONCE, BAND = 2**24, 2**22  # pixels that are resized at once, or else in bands of so many

Read = Callable[[int, int, int, int], np.ndarray]  # top, bottom, left, right -> uint8


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Of an array (H, W, ...), what is inside."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)


class Canvas(NamedTuple):
    """Images are scaled to it (stretch), cut to its aspect (crop), or mirrored around (pad)."""

    height: int
    width: int
    fit: str
    filter: str

    def seen(self, size: tuple[int, int]) -> Box:
        """The part of an image (H, W) that lies on the canvas."""
        return middle(size, self[:2]) if self.fit == "crop" else Box(0, 0, *size)

    def place(self, size: tuple[int, int]) -> Box:
        """Where that lies."""
        return middle(self[:2], size) if self.fit == "pad" else Box(0, 0, *self[:2])

    def resize(self, read: Read, size: tuple[int, int]) -> np.ndarray:
        """Returns the pixels of the canvas, (h, w, 3) uint8, of an image (H, W).

        Where it has more than `AT_ONCE` pixels, its rows are resized first, band by band.

        Raises:
          UserError: the image is too long for its width.
        """
        (top, left, height, width), place = self.seen(size), self.place(size)
        resample, most = FILTERS[self.filter], Image.MAX_IMAGE_PIXELS
        if most is not None and height * place.width > 2 * most:
            raise UserError(f"{height} rows are too many; cut it into parts")
        rows = height if height * width <= AT_ONCE else max(1, BAND // width)
        bands = []
        for first in range(top, top + height, rows):
            last = min(first + rows, top + height)
            band = Image.fromarray(read(first, last, left, left + width))
            if height * width > AT_ONCE:
                band = band.resize((place.width, last - first), resample)
            bands.append(np.asarray(band))
        whole = Image.fromarray(np.concatenate(bands))
        pixels = np.asarray(resize(whole, (place.width, place.height), resample))
        below, right = self.height - place.top - place.height, self.width - place.left - place.width
        pads = [(place.top, below), (place.left, right), (0, 0)]
        return rgb(np.pad(pixels, pads[: pixels.ndim], "reflect"))

    def at_image(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Brings a map (h, w) back to its image (H, W); what was never judged gets its least."""
        seen, place = self.seen(size), self.place(size)
        part = Image.fromarray(values[place.slices].astype(np.float32))
        found = np.asarray(part.resize((seen.width, seen.height), Image.Resampling.BILINEAR))
        if found.shape == size:
            return found
        whole = np.full(size, np.fmin.reduce(found, axis=None), np.float32)
        whole[seen.slices] = found
        return whole


def resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Resizes to (width, height) as Pillow 13 does, whatever its version.

    It rounds between both passes, so that their order shows.
    """
    (width, height), (wide, tall) = image.size, size
    columns_first = height - tall > 2 * max(width - wide, 0)
    between = (width, tall) if columns_first else (wide, height)
    return image.resize(between, resample).resize(size, resample)


def middle(size: tuple[int, int], aspect: tuple[int, int]) -> Box:
    """The largest box of an aspect (height, width) in the middle of a size (H, W)."""
    (height, width), (tall, wide) = size, aspect
    if width * tall > height * wide:
        width = max(1, round(height * wide / tall))
    else:
        height = max(1, round(width * tall / wide))
    return Box((size[0] - height) // 2, (size[1] - width) // 2, height, width)


def rgb(pixels: np.ndarray) -> np.ndarray:
    """Repeats grey (h, w) as (h, w, 3)."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
