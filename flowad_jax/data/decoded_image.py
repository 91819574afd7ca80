"""The pixels of an image that Pillow has opened, with all their bits and upright."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

BAND = 2**22  # pixels that are converted at once

ORIENTATION, BITS, PHOTOMETRIC = 274, 258, 262  # tags
SWAPPED = (5, 6, 7, 8)  # orientations that swap the sides
_COLOUR_16 = ("RGB;16", "RGBA;16", "RGBX;16")  # Pillow keeps the upper 8 bits of these
_VIA = {"La": "LA", "P": "RGBA", "PA": "RGBA", "RGBa": "RGBA"}  # no direct way, or a warning


class DecodedImage:
    """The pixels of a file in its own mode, 1 to 8 bytes each, upright by its orientation tag.

    Attributes:
      size: (H, W) upright.
      is_deep: whether `read` returns more than 8 bits.
      inverted: whether the largest value is black; `read` leaves that as it is.
    """

    def __init__(self, image: ImageFile.ImageFile) -> None:
        """Decodes an image that was just opened."""
        tags = getattr(image, "tag_v2", {})
        self.is_deep = is_deep(image)
        self.inverted = _is_deep_grey(image.mode) and tags.get(PHOTOMETRIC) == 0
        self._is_12_bit = tuple(tags.get(BITS, ())) == (12,)
        self._low = _load_low_bytes(image)
        self._has_alpha_below = _is_grey_and_alpha_16(image)
        if self._has_alpha_below:  # taken as one number, in which grey comes first
            image._mode, image.tile = "I", [image.tile[0]._replace(args="I;32B")]
        _load(image)
        self._image = image
        self._orientation = image.getexif().get(ORIENTATION, 1)
        self.size = image.size if self._orientation in SWAPPED else image.size[::-1]

    def read(
        self, top: int = 0, bottom: int | None = None, left: int = 0, right: int | None = None
    ) -> np.ndarray:
        """Returns a part of the image.

        Returns:
          (h, w) for grey and (h, w, 3) for colour; uint8, or another type for more bits.
        """
        x = [left, self.size[1] if right is None else right]
        y = [top, self.size[0] if bottom is None else bottom]
        if self._orientation in SWAPPED:
            x, y = y, x
        width, height = self._image.size
        if self._orientation in (2, 3, 7, 8):
            x = [width - x[1], width - x[0]]
        if self._orientation in (3, 4, 6, 7):
            y = [height - y[1], height - y[0]]
        box = (x[0], y[0], x[1], y[1])
        pixels = as_array(self._image, box)
        if self._low is not None:
            pixels = pixels.astype(np.uint16) << 8 | as_array(self._low, box)
        elif self._has_alpha_below:
            pixels = (pixels.view(np.uint32) >> 16).astype(np.uint16)
        elif self._is_12_bit:  # declared, so that white is certain
            pixels = (pixels << 4 | pixels >> 8).astype(np.uint16)
        return np.ascontiguousarray(upright(pixels, self._orientation))


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored pixels (H, W, ...) as an orientation tag says."""
    stored = stored[:, ::-1] if orientation in (2, 3, 7, 8) else stored
    stored = stored[::-1] if orientation in (3, 4, 6, 7) else stored
    return stored.swapaxes(0, 1) if orientation in SWAPPED else stored


def row_bands(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yields the first and last row, exclusive, of parts that need little memory."""
    height, width = size
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def bytes_per_pixel(image: ImageFile.ImageFile) -> int:
    """What an image that was just opened takes when it is decoded, as Pillow stores pixels."""
    if image.mode in ("1", "L", "P"):
        return 1
    return 2 if image.mode.startswith("I;16") else 8 if _low_byte_tiles(image) else 4


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image that was just opened has more than 8 bits per value."""
    return _is_deep_grey(image.mode) or bool(_low_byte_tiles(image)) or _is_grey_and_alpha_16(image)


def _is_grey_and_alpha_16(image: ImageFile.ImageFile) -> bool:
    """Pillow keeps the upper 8 bits of this, too; only PNG has it."""
    return [tile[3] for tile in image.tile] == ["LA;16B"]


def _is_deep_grey(mode: str) -> bool:
    return mode in ("I", "F") or mode.startswith("I;16")


def _load(image: ImageFile.ImageFile) -> None:
    """Decodes pixels whose number was checked; for TIFF Pillow checks it again, if it has to."""
    if isinstance(image, TiffImageFile):
        image.im = Image.new(image.mode, (image.tag_v2[256], image.tag_v2[257])).im
    image.load()


def _load_low_bytes(image: ImageFile.ImageFile) -> Image.Image | None:
    """Decodes the lower 8 bits of 16-bit colour, by reading it in the other order of bytes."""
    tiles = _low_byte_tiles(image)
    if not tiles or image.fp is None:
        return None
    position = image.fp.tell()
    image.fp.seek(0)
    low: Any = type(image)(image.fp)
    low.tile = tiles
    _load(low)
    image.fp.seek(position)
    return low


def _low_byte_tiles(image: ImageFile.ImageFile) -> list[Any]:
    """What to decode for the lower 8 bits; nothing if the image is not 16-bit colour."""
    tiles: list[Any] = list(image.tile)
    for number, (codec, extents, offset, args) in enumerate(tiles):
        mode, *others = (args,) if isinstance(args, str) else args
        if not isinstance(mode, str) or mode[:-1] not in _COLOUR_16:
            return []
        little = mode[-1] == "L" or (mode[-1] == "N" and sys.byteorder == "little")
        mode = mode[:-1] + ("B" if little else "L")
        tiles[number] = ImageFile._Tile(codec, extents, offset, (mode, *others))
    return tiles


def as_array(image: Image.Image, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """Pixels in a box: (h, w) grey or (h, w, 3), uint8 or the deeper type of the mode."""
    part = image if box in (None, (0, 0, *image.size)) else image.crop(box)
    if _is_deep_grey(part.mode):
        return np.asarray(part)
    if part.mode in _VIA:
        part = part.convert(_VIA[part.mode])
    target = "L" if part.mode in ("1", "L", "LA") else "RGB"
    return np.asarray(part if part.mode == target else part.convert(target))
