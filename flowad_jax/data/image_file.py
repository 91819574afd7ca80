"""Image files of the documented formats, decoded in their own pixel mode and seen upright."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageFile, ImagePalette, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from flowad_jax import memory
from flowad_jax.data.decoded_image import (
    BITS,
    ORIENTATION,
    PHOTOMETRIC,
    DecodedImage,
    bytes_per_pixel,
    is_deep,
)
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

SUBFILE, _SAMPLE_FORMAT, _PLANES = 254, 339, 284  # tags
_TAGS_AS_TEXT = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # keywords of PNG
_LIMIT = threading.Lock()  # held by whoever reads or changes Pillow's limit
# `open_image` refuses what is too large; this would only frighten, from any thread.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class TooLargeError(UserError):
    """An image has more pixels than are decoded at once."""


def most_pixels() -> int | None:
    """The number of pixels above which Pillow refuses an image; None for no limit."""
    with _LIMIT:
        return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


@contextlib.contextmanager
def open_image(path: str | Path, any_size: bool = False) -> Iterator[ImageFile.ImageFile]:
    """Opens an image file and checks its header; decodes nothing.

    Args:
      path: the file.
      any_size: whether Pillow's limit does not count, but what fits into memory.

    Raises:
      UserError: it is missing, damaged, too large, of another format, no regular file, or has
        several pages; or whatever else is raised inside.
    """
    try:
        # By name, Pillow maps uncompressed TIFF files into memory with the sides of the image as
        # it is shown, although the file holds it turned.
        with open_regular(path) as file, _open(file, any_size) as image:
            if isinstance(image, TiffImageFile):
                _check_tiff(image)
            if image.format == "BMP" and image.mode == "1":
                _correct_bmp(image)
            yield image
    except TooLargeError:
        raise
    except UserError as error:
        raise UserError(f"cannot read '{path}': {error}") from None
    except Exception as error:  # decoders raise nearly any type on damaged files
        raise unreadable(path, error) from error


def _open(file: IO[bytes], any_size: bool) -> ImageFile.ImageFile:
    with _LIMIT:
        most = Image.MAX_IMAGE_PIXELS
        try:
            Image.MAX_IMAGE_PIXELS = None if any_size else most
            image = Image.open(file, formats=tuple(FORMATS))
            _check_pages(image)
        finally:
            Image.MAX_IMAGE_PIXELS = most
    needed = image.width * image.height * bytes_per_pixel(image)
    if any_size and needed > (free := memory.host()):
        raise UserError(
            f"its pixels take {memory.text(needed)} of memory, but {memory.text(free)} are free; "
            "cut it into parts"
        )
    return image


def _check_pages(image: ImageFile.ImageFile) -> None:
    """Accepts pages that belong to the first: smaller copies, transparency masks, gain maps."""
    if not getattr(image, "is_animated", False):
        return
    pages, pixels = getattr(image, "n_frames"), image.width * image.height  # noqa: B009, plug-ins
    are_extra = image.format in ("TIFF", "MPO")
    for page in range(1, pages if are_extra else 1):
        image.seek(page)
        if isinstance(image, TiffImageFile):
            are_extra &= bool(image.tag_v2.get(SUBFILE, 0) & 5)
        else:
            are_extra &= image.width * image.height < pixels
    if not are_extra:
        raise several_pages(pages)
    image.seek(0)


def several_pages(count: int) -> UserError:
    """The error about a file with pages of which only the first would be judged."""
    return UserError(f"it has {count} pages, and only one can be judged; save each in its own file")


def _check_tiff(image: TiffImageFile) -> None:
    """Refuses what Pillow would read, but not as it is meant."""
    tags = image.tag_v2
    bits, signed = tags.get(BITS, (1,)), 2 in tags.get(_SAMPLE_FORMAT, (1,))
    fax = str(image.info.get("compression")).startswith(("group", "tiff_ccitt"))
    if PHOTOMETRIC not in tags and len(bits) == 1 and not fax:
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


def _correct_bmp(image: ImageFile.ImageFile) -> None:
    """Pillow takes every BMP in black and white for one of 1 bit per pixel."""
    file: Any = image.fp
    position = file.tell()
    file.seek(14)  # where the header begins, with its size
    header = file.read(16)
    file.seek(position)
    bits = int.from_bytes(header[10:12] if header[0] == 12 else header[14:16], "little")
    if bits > 1:
        tile: Any = image.tile[0]
        image._mode, image.palette = "P", ImagePalette.raw("RGB", b"\0\0\0\xff\xff\xff")
        image.tile = [tile._replace(args=("P" if bits == 8 else f"P;{bits}", *tile.args[1:]))]


def orientation_tag(image: ImageFile.ImageFile) -> int:
    """The orientation of an image that was just opened, 1 to 8; 1 if it has no tag.

    Only a PNG that is tagged behind its pixels, as some programs do it, is decoded for that.
    """
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None:
        is_early = image.format == "PNG" and not _is_tagged_late(image)
        tags = Image.Image.getexif(image) if is_early else image.getexif()
    found = tags.get(ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def _is_tagged_late(png: ImageFile.ImageFile) -> bool:
    """Whether a chunk behind the pixels may hold the orientation."""
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


class PixelBudget:
    """Bounds the pixels that all threads hold at once.

    A thread that asks for more than what is left waits, unless nobody holds any: then one image
    may exceed the budget. A thread that holds pixels must not wait for another that asks for some.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels, self._held = pixels, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Waits for so many pixels and gives them back at the end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + pixels <= self._pixels)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()


_BUDGET = PixelBudget(2**28)


@contextlib.contextmanager
def decode(path: str | Path, any_size: bool = False) -> Iterator[DecodedImage]:
    """Decodes an image file and holds its pixels.

    Waits while other threads hold too many pixels, see `PixelBudget`: whoever holds an image must
    not wait for another thread that reads images.

    Raises:
      UserError: as `open_image`.
    """
    with contextlib.ExitStack() as held:
        with open_image(path, any_size) as image:
            held.enter_context(_BUDGET.hold(image.width * image.height))
            decoded = DecodedImage(image)
        yield decoded


def unreadable(path: str | Path, error: Exception) -> UserError:
    """Puts whatever was raised for a file into one line with a remedy."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        warned = isinstance(error, Image.DecompressionBombWarning)  # where warnings are errors
        most = Image.MAX_IMAGE_PIXELS if warned else most_pixels()
        return TooLargeError(
            f"cannot read '{path}': it has more than {most} pixels; make it smaller"
        )
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
