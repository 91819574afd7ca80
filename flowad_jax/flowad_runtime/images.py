"""Image files, PIL images and arrays as the pixels that the detector was trained on.

What `flowad_jax` reads is read here bit for bit. The orientation tag is applied, grey is repeated,
alpha is dropped, palettes and CMYK become RGB, and of 12 and 16 bits all count.
"""

from __future__ import annotations

import os
import stat
import sys
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImagePalette, UnidentifiedImageError

from .canvas import BAND
from .errors import UserError, reason

# Raster formats that Pillow decodes by itself; others start programs or hold many images.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (
    *(".bmp", ".gif", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf"),
    *(".jpx", ".png", ".apng", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tif", ".tiff", ".webp"),
)
WHITE = 65535  # the largest value of 16 bits
SUBFILE, BITS, PHOTOMETRIC, ORIENTATION, PLANES, SAMPLE_FORMAT = 254, 258, 262, 274, 284, 339
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # orientation -> Image.Transpose
COLOUR_16 = ("RGB;16", "RGBA;16", "RGBX;16")  # Pillow keeps the upper 8 bits of these
OTHER_BYTE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
VIA = {"La": "LA", "P": "RGBA", "PA": "RGBA", "RGBa": "RGBA"}  # no direct way, or a warning
TAKEN = (
    "give the path of a file, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4) of uint8, "
    "uint16 or floats from 0 to 1"
)
# What is too large is refused; this would only frighten.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class DecodedFile:
    """An image file, upright and in its own pixel mode, of which parts are read as 8 bits.

    Attributes:
      size: (H, W).
    """

    def __init__(self, path: Any, white: int) -> None:
        """Decodes a file; ``white`` is the value of white in images of more than 8 bits.

        Raises:
          UserError: it is missing, damaged, too large, of another format or of several pages, or
            Pillow would not read it as it is meant.
        """
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
                raise UserError("it is no regular file")
            with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
                check_pages(image)
                check_meaning(image)
                self._decode(image)
            self.size: tuple[int, int] = self._image.size[::-1]
            self._full = self._find_full(white)
        except Exception as error:  # decoders raise nearly any type on damaged files
            why = reason(error)
            if isinstance(error, UnidentifiedImageError):
                why = f"it is none of {', '.join(FORMATS)}, or damaged; replace or remove it"
            raise UserError(f"cannot read '{path}': {why}") from error

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Returns a part, (h, w) for grey or (h, w, 3), uint8."""
        pixels = self._stored(top, bottom, left, right)
        if not self._is_deep:
            return pixels
        return to_8_bits(self._full - pixels if self._is_inverted else pixels, self._full)

    def _decode(self, image: Any) -> None:
        tags = getattr(image, "tag_v2", {})
        self._is_deep, low = is_deep(image), low_bytes(image)
        self._is_inverted = is_deep_grey(image.mode) and tags.get(PHOTOMETRIC) == 0
        self._is_12_bit = tuple(tags.get(BITS, ())) == (12,)
        self._has_alpha_below = is_grey_and_alpha_16(image)
        if self._has_alpha_below:  # taken as one number, in which grey comes first
            image._mode, image.tile = "I", [image.tile[0]._replace(args="I;32B")]
        image.load()
        orientation = image.getexif().get(ORIENTATION)
        self._image, self._low = upright(image, orientation), low and upright(low, orientation)

    def _stored(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        box = (left, top, right, bottom)
        pixels = as_array(self._image.crop(box))
        if self._low:
            return pixels.astype(np.uint16) << 8 | as_array(self._low.crop(box))
        if self._has_alpha_below:
            return (pixels.view(np.uint32) >> 16).astype(np.uint16)
        return (pixels << 4 | pixels >> 8).astype(np.uint16) if self._is_12_bit else pixels

    def _find_full(self, white: int) -> float:
        """The value that is shown as white; no pixel may exceed it."""
        (height, width), full = self.size, 255.0
        rows = max(1, BAND // width)
        for top in range(0, height, rows) if self._is_deep else ():
            full = full_scale(self._stored(top, min(top + rows, height), 0, width), white)
        return full


def check_pages(image: Any) -> None:
    """Accepts pages that belong to the first: smaller copies, transparency masks, gain maps."""
    if not getattr(image, "is_animated", False):
        return
    pages, pixels = image.n_frames, image.width * image.height
    are_extra = image.format in ("TIFF", "MPO")
    for page in range(1, pages if are_extra else 1):
        image.seek(page)
        is_smaller = image.width * image.height < pixels
        is_tiff = image.format == "TIFF"
        are_extra &= bool(image.tag_v2.get(SUBFILE, 0) & 5) if is_tiff else is_smaller
    if not are_extra:
        raise UserError(f"it has {pages} pages, and only one can be judged; save each alone")
    image.seek(0)


def check_meaning(image: Any) -> None:
    """Refuses what Pillow would read, but not as it is meant."""
    if image.format == "BMP" and image.mode == "1":
        correct_bmp(image)
    if image.format != "TIFF":
        return
    tags = image.tag_v2
    bits, is_signed = tags.get(BITS, (1,)), 2 in tags.get(SAMPLE_FORMAT, (1,))
    is_fax = str(image.info.get("compression")).startswith(("group", "tiff_ccitt"))
    if PHOTOMETRIC not in tags and len(bits) == 1 and not is_fax:
        raise UserError("its tag PhotometricInterpretation is missing; save it anew")
    if 8 in bits and is_signed:
        raise UserError("its values have a sign; save it with 8 bits without sign")
    is_apart = len(bits) > 1 and tags.get(PLANES) == 2
    if max(bits) > 8 and (is_apart or not (is_deep(image) or image.mode == "CMYK")):
        raise UserError("only 8 of its bits can be read; save its colours pixel by pixel, opaque")


def correct_bmp(image: Any) -> None:
    """Pillow takes every BMP in black and white for one of 1 bit per pixel."""
    position = image.fp.tell()
    image.fp.seek(14)  # where the header begins, with its size
    header = image.fp.read(16)
    image.fp.seek(position)
    bits = header[10] if header[0] == 12 else header[14]
    if bits > 1:
        tile = image.tile[0]
        image._mode, image.palette = "P", ImagePalette.raw("RGB", b"\0\0\0\xff\xff\xff")
        image.tile = [tile._replace(args=("P" if bits == 8 else f"P;{bits}", *tile.args[1:]))]


def is_deep(image: Any) -> bool:
    """Whether an image that was just opened has more than 8 bits per value."""
    return is_deep_grey(image.mode) or bool(low_tiles(image)) or is_grey_and_alpha_16(image)


def is_deep_grey(mode: str) -> bool:
    """Whether Pillow keeps more than 8 bits in a mode."""
    return mode in ("I", "F") or mode.startswith("I;16")


def is_grey_and_alpha_16(image: Any) -> bool:
    """Pillow keeps the upper 8 bits of this; only PNG has it."""
    return [tile[3] for tile in image.tile] == ["LA;16B"]


def low_tiles(image: Any) -> list[Any]:
    """What to decode for the lower 8 bits; nothing if the image is not 16-bit colour."""
    tiles = []
    for codec, extents, offset, args in image.tile:
        mode, *others = (args,) if isinstance(args, str) else args
        if not isinstance(mode, str) or mode[:-1] not in COLOUR_16:
            return []
        low = (mode[:-1] + OTHER_BYTE[mode[-1]], *others)
        tiles.append(ImageFile._Tile(codec, extents, offset, low))
    return tiles


def low_bytes(image: Any) -> Any:
    """Decodes the lower 8 bits of 16-bit colour, by reading it in the other order of bytes."""
    tiles = low_tiles(image)
    if not tiles:
        return None
    position = image.fp.tell()
    image.fp.seek(0)
    low = type(image)(image.fp)
    low.tile = tiles
    low.load()
    image.fp.seek(position)
    return low


def upright(image: Any, orientation: Any) -> Any:
    """Turns an image as its tag says."""
    turn = TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def as_array(image: Any) -> np.ndarray:
    """Pixels (h, w) of grey or (h, w, 3), uint8 or the deeper type of the mode."""
    if is_deep_grey(image.mode):
        return np.asarray(image)
    if image.mode in VIA:
        image = image.convert(VIA[image.mode])
    target = "L" if image.mode in ("1", "L", "LA") else "RGB"
    return np.asarray(image if image.mode == target else image.convert(target))


def full_scale(pixels: np.ndarray, white: int) -> float:
    """Returns the value that is shown as white; floats lie in [0, 1] unless it is given.

    Raises:
      UserError: a value is below 0, above it or NaN.
    """
    full = 1.0 if pixels.dtype.kind == "f" and white == WHITE else float(white)
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= full):  # NaN is neither
        raise UserError(f"it has values from {low:.6g} to {high:.6g}; scale it to 0 to {full:g}")
    return full


def to_8_bits(pixels: np.ndarray, full: float) -> np.ndarray:
    """Scales pixels so that the value ``full`` becomes 255, and rounds them."""
    return np.rint(pixels * (255.0 / full)).astype(np.uint8)


def to_pixels(image: Any, white: int) -> np.ndarray:
    """Returns what a program holds as a file of the same values is read, (H, W[, 3]) uint8.

    Raises:
      UserError: it is no such image, see `TAKEN`.
    """
    is_pillow = isinstance(image, Image.Image)
    if is_pillow:
        opened = isinstance(image, ImageFile.ImageFile)  # what was derived of it is taken as it is
        image.load()
        pixels = as_array(upright(image, image.getexif().get(ORIENTATION) if opened else 1))
    else:
        pixels = np.asarray(image if hasattr(image, "__array__") else ())
    if pixels.dtype.name in ("float16", "bfloat16"):
        pixels = pixels.astype(np.float32)
    has_shape = pixels.ndim in (2, 3) and pixels.shape[2:] in ((), (1,), (3,), (4,))
    has_type = is_pillow or pixels.dtype.name in ("uint8", "uint16", "float32", "float64")
    if not has_shape or not has_type or not pixels.size:
        shape = f"{pixels.dtype} of shape {pixels.shape}"
        raise UserError(f"an image is a {type(image).__name__}, {shape}: {TAKEN}")
    if pixels.dtype != np.uint8:
        pixels = to_8_bits(pixels, full_scale(pixels, white))
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]
    return np.ascontiguousarray(pixels)
