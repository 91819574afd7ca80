"""Image files of the documented formats, decoded in their own pixel mode and seen upright."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImagePalette, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from flowad_jax.errors import UserError
from flowad_jax.files import open_regular

# Raster formats that Pillow decodes by itself. Others start programs (EPS), are containers of
# many images (ICO, PSD) or hold no plain pixels (FITS).
FORMATS = {
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
BAND = 2**22  # pixels that are converted at once

ORIENTATION, _PHOTOMETRIC, _BITS, _SAMPLE_FORMAT, _SUBFILE, _PLANES = 274, 262, 258, 339, 254, 284
_TAGS_AS_TEXT = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # keywords of PNG
SWAPPED = (5, 6, 7, 8)  # orientations that swap the sides
_GREY_AND_ALPHA_16 = "LA;16B"  # of this, too, and of PNG only
_COLOUR_16 = ("RGB;16", "RGBA;16", "RGBX;16")  # Pillow keeps the upper 8 bits of these
_VIA = {"La": "LA", "P": "RGBA", "PA": "RGBA", "RGBa": "RGBA"}  # no direct way, or a warning
# `opened` itself refuses what is too large; this would only frighten, from any thread.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class TooLargeError(UserError):
    """An image has more pixels than are decoded at once."""


def most_pixels() -> int | None:
    """The number of pixels above which Pillow refuses an image; None for no limit."""
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[ImageFile.ImageFile]:
    """Opens an image file and checks its header; decodes nothing.

    Raises:
      UserError: it is missing, damaged, too large, of another format, no regular file, or has
        several pages; or whatever else is raised inside.
    """
    try:
        # By name, Pillow maps uncompressed TIFF files into memory with the sides of the image as
        # it is shown, although the file holds it turned.
        with open_regular(path) as file, Image.open(file, formats=tuple(FORMATS)) as image:
            _check_pages(image)
            if isinstance(image, TiffImageFile):
                _check_tiff(image)
            if image.format == "BMP" and image.mode == "1":
                _mend_bmp(image)
            yield image
    except TooLargeError:
        raise
    except UserError as error:
        raise UserError(f"cannot read '{path}': {error}") from None
    except Exception as error:  # decoders raise nearly any type on damaged files
        raise unreadable(path, error) from error


def _check_pages(image: ImageFile.ImageFile) -> None:
    """Raises a UserError if a file has other pages than thumbnails and the like."""
    if not getattr(image, "is_animated", False):
        return
    pages: int = getattr(image, "n_frames")  # noqa: B009, plug-ins define it
    if image.format in ("TIFF", "MPO"):
        size = image.size
        others = [page for page in range(1, pages) if not _is_extra(image, page, size)]
        image.seek(0)
        if not others:
            return
    raise several_pages(pages)


def several_pages(count: int) -> UserError:
    """Says that a file has pages of which only the first would be judged."""
    return UserError(f"it has {count} pages, and only one can be judged; save each in its own file")


def _is_extra(image: ImageFile.ImageFile, page: int, size: tuple[int, int]) -> bool:
    """Whether a page belongs to the first one: a smaller copy, a transparency mask, a gain map."""
    image.seek(page)
    if isinstance(image, TiffImageFile):
        return bool(image.tag_v2.get(_SUBFILE, 0) & 5)
    return image.width * image.height < size[0] * size[1]


def _check_tiff(image: TiffImageFile) -> None:
    """Raises a UserError for what Pillow would read, but not as it is meant."""
    tags = image.tag_v2
    bits, signed = tags.get(_BITS, (1,)), 2 in tags.get(_SAMPLE_FORMAT, (1,))
    fax = str(image.info.get("compression")).startswith(("group", "tiff_ccitt"))
    if _PHOTOMETRIC not in tags and len(bits) == 1 and not fax:
        raise UserError(
            "its tag PhotometricInterpretation is missing, so that black may be white; save it anew"
        )
    if 8 in bits and signed:
        raise UserError("its values have a sign; save it with 8 bits without sign")
    apart = len(bits) > 1 and tags.get(_PLANES) == 2
    # Of CMYK, which no camera gives, the upper 8 bits are enough.
    if max(bits) > 8 and (apart or not (is_deep(image) or image.mode == "CMYK")):
        raise UserError(
            "only 8 of its bits can be read, as its colours are stored apart or multiplied by "
            "their opacity; save them pixel by pixel and without transparency"
        )


def _mend_bmp(image: ImageFile.ImageFile) -> None:
    """Undoes that Pillow takes every BMP in black and white for one of 1 bit per pixel."""
    file: Any = image.fp
    position = file.tell()
    file.seek(14)  # where the header begins, with its size
    header = file.read(16)
    file.seek(position)
    bits = int.from_bytes(header[10:12] if header[0] == 12 else header[14:16], "little")
    if bits > 1:
        tile: Any = image.tile[0]
        codec, extents, offset, args = tile
        image._mode, image.palette = "P", ImagePalette.raw("RGB", b"\0\0\0\xff\xff\xff")
        new = ("P" if bits == 8 else f"P;{bits}", *args[1:])
        image.tile = [ImageFile._Tile(codec, extents, offset, new)]


def is_tagged_late(png: ImageFile.ImageFile) -> bool:
    """Whether a chunk behind the pixels of a PNG, just opened, may hold its orientation."""
    file: Any = png.fp
    position, behind, found = file.tell(), False, False
    file.seek(8)
    while not found and len(header := file.read(8)) == 8 and header[4:] != b"IEND":
        size, name = int.from_bytes(header[:4], "big"), header[4:]
        start = file.read(min(size, 21))
        found = behind and (name == b"eXIf" or start.startswith(_TAGS_AS_TEXT))
        behind |= name == b"IDAT"
        file.seek(size - len(start) + 4, 1)
    file.seek(position)
    return found


class DecodedImage:
    """The pixels of a file in its own mode, 1 to 8 bytes each, upright by its orientation tag.

    Attributes:
      size: (H, W) upright.
      is_deep: whether `read` returns more than 8 bits.
      inverted: whether the largest value is black; `read` leaves that as it is.
    """

    def __init__(self, image: ImageFile.ImageFile) -> None:
        """Decodes an image that was just opened."""
        mode, tags = image.mode, getattr(image, "tag_v2", {})
        self.is_deep = is_deep(image)
        self._low = _load_low_bytes(image)
        self._has_alpha_below = _is_grey_and_alpha_16(image)
        if self._has_alpha_below:  # taken as one number, in which grey comes first
            image._mode, image.tile = "I", [image.tile[0]._replace(args="I;32B")]
        image.load()
        self._image = image
        self._is_12_bit = tuple(tags.get(_BITS, ())) == (12,)
        self.inverted = _is_deep_grey(mode) and tags.get(_PHOTOMETRIC) == 0
        turn = image.getexif().get(ORIENTATION, 1)
        self._swapped = turn in SWAPPED
        self._flipped = turn in (2, 3, 7, 8), turn in (3, 4, 6, 7)
        self.size = image.size if self._swapped else image.size[::-1]

    def read(
        self, top: int = 0, bottom: int | None = None, left: int = 0, right: int | None = None
    ) -> np.ndarray:
        """Returns a part of the image.

        Returns:
          (h, w) for grey and (h, w, 3) for colour; uint8, or another type for more bits.
        """
        x = [left, self.size[1] if right is None else right]
        y = [top, self.size[0] if bottom is None else bottom]
        if self._swapped:
            x, y = y, x
        width, height = self._image.size
        if self._flipped[0]:
            x = [width - x[1], width - x[0]]
        if self._flipped[1]:
            y = [height - y[1], height - y[0]]
        pixels = self._stored((x[0], y[0], x[1], y[1]))
        pixels = pixels[:, ::-1] if self._flipped[0] else pixels
        pixels = pixels[::-1] if self._flipped[1] else pixels
        return np.ascontiguousarray(pixels.swapaxes(0, 1) if self._swapped else pixels)

    def _stored(self, box: tuple[int, int, int, int]) -> np.ndarray:
        pixels = _as_array(self._image, box)
        if self._low is not None:
            return pixels.astype(np.uint16) << 8 | _as_array(self._low, box)
        if self._has_alpha_below:
            return (pixels.view(np.uint32) >> 16).astype(np.uint16)
        if self._is_12_bit:  # declared, so that white is certain
            return (pixels << 4 | pixels >> 8).astype(np.uint16)
        return pixels


def row_bands(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yields the first and last row, exclusive, of parts that need little memory."""
    height, width = size
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image that was just opened has more than 8 bits per value."""
    return _is_deep_grey(image.mode) or bool(_low_byte_tiles(image)) or _is_grey_and_alpha_16(image)


def _is_grey_and_alpha_16(image: ImageFile.ImageFile) -> bool:
    return [tile[3] for tile in image.tile] == [_GREY_AND_ALPHA_16]


def _is_deep_grey(mode: str) -> bool:
    return mode in ("I", "F") or mode.startswith("I;16")


def _load_low_bytes(image: ImageFile.ImageFile) -> Image.Image | None:
    """Decodes the lower 8 bits of 16-bit colour, by reading it in the other order of bytes."""
    tiles = _low_byte_tiles(image)
    if tiles is None or image.fp is None:
        return None
    position = image.fp.tell()
    image.fp.seek(0)
    low: Any = Image.open(image.fp, formats=tuple(FORMATS))
    low.tile = tiles
    low.load()
    image.fp.seek(position)
    return low


def _low_byte_tiles(image: ImageFile.ImageFile) -> list[Any] | None:
    """What to decode for the lower 8 bits; None if the image is not 16-bit colour."""
    tiles = [_opposite(*tile) for tile in image.tile]
    return tiles if tiles and None not in tiles else None


def _opposite(codec: str, extents: Any, offset: int, args: Any) -> Any:
    """The tile with the raw mode of the other order of bytes; None if it is no 16-bit colour."""
    mode = args if isinstance(args, str) else args[0]
    if not isinstance(mode, str) or mode[:-1] not in _COLOUR_16:
        return None
    order = mode[-1].replace("N", "L" if sys.byteorder == "little" else "B")
    mode = mode[:-1] + ("B" if order == "L" else "L")
    new = mode if isinstance(args, str) else (mode, *args[1:])
    return ImageFile._Tile(codec, extents, offset, new)


def _as_array(image: Image.Image, box: tuple[int, int, int, int]) -> np.ndarray:
    """Pixels in a box: (h, w) grey or (h, w, 3), uint8 or the deeper type of the mode."""
    part = image if box == (0, 0, *image.size) else image.crop(box)
    if _is_deep_grey(part.mode):
        return np.asarray(part)
    if part.mode in _VIA:
        part = part.convert(_VIA[part.mode])
    target = "L" if part.mode in ("1", "L", "LA") else "RGB"
    return np.asarray(part if part.mode == target else part.convert(target))


def unreadable(path: str | Path, error: Exception) -> UserError:
    """Puts whatever was raised for a file into one line with a remedy."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        warned = isinstance(error, Image.DecompressionBombWarning)  # where warnings are errors
        most = Image.MAX_IMAGE_PIXELS if warned else most_pixels()
        why = f"it has more than {most} pixels; make it smaller"
        return TooLargeError(f"cannot read '{path}': {why}")
    if isinstance(error, UnidentifiedImageError):
        formats = ", ".join(FORMATS)
        why = f"it is none of {formats}, or damaged, or has unknown pixels; replace or remove it"
    elif isinstance(error, MemoryError):
        why = "there is not enough memory for its pixels; make it smaller"
    elif isinstance(error, OSError) and error.strerror:
        why = f"{error.strerror}; check the path and its permissions"
    else:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        why = f"the file is damaged ({reason}); replace or remove it"
    return UserError(f"cannot read '{path}': {why}")
