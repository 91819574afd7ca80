"""How image files become arrays.

Read are BMP, GIF, JPEG, JPEG 2000, PNG, PPM (with PGM, PBM and PFM), TIFF and WebP, whatever the
name of the file says. A file with several pages or frames is refused, unless the others are
thumbnails. The orientation tag is applied. Grey is repeated, alpha is dropped (the stored colour
counts, not its opacity), palettes and CMYK become RGB. Values of more than 8 bits are divided by
``white / 255`` and rounded, never clipped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from flowad_jax.data._image_file import (
    BUDGET,
    ORIENTATION,
    SWAPPED,
    DecodedImage,
    is_deep,
    most_pixels,
    opened,
    row_bands,
)
from flowad_jax.data.transforms import resampling
from flowad_jax.errors import UserError

WHITE = 65535  # the largest value of 16 bits
_LEVELS = (255, 1023, 4095, 16383, 65535)  # largest values of cameras
_AT_ONCE = 2**24  # pixels of an image that is resized as a whole
_LOOKED_AT = 8  # files for `depth_advice`


class Windows:
    """A decoded image file, of which parts are read; see `open_windows`.

    Attributes:
      size: (H, W), upright.
      full: the value that is shown as white; None for images of 8 bits.
      largest: the largest value where ``full`` is given.
    """

    def __init__(self, decoded: DecodedImage, white: int) -> None:
        """Checks the values of all pixels.

        Raises:
          UserError: a value exceeds white; the message begins behind the name of the file.
        """
        self.size = decoded.size
        self.full: float | None = None
        self.largest = 0.0
        self._decoded = decoded
        if decoded.is_deep:
            self._measure(white)

    def read(
        self, top: int = 0, bottom: int | None = None, left: int = 0, right: int | None = None
    ) -> np.ndarray:
        """Returns the rows and columns from ``top`` and ``left`` on, (h, w, 3) uint8."""
        return _rgb(self.read_native(top, bottom, left, right))

    def read_native(
        self, top: int = 0, bottom: int | None = None, left: int = 0, right: int | None = None
    ) -> np.ndarray:
        """As `read`, but grey is (h, w)."""
        pixels = self._decoded.read(top, bottom, left, right)
        if self.full is None:
            return pixels
        shown = self.full - pixels if self._decoded.inverted else pixels
        return np.rint(shown * (255.0 / self.full)).astype(np.uint8)

    def _measure(self, white: int) -> None:
        parts = [self._decoded.read(*rows) for rows in row_bands(self.size)]
        low, high = (min(part.min() for part in parts), max(part.max() for part in parts))
        self.full, self.largest = full_scale(parts[0], white), float(high)
        if not (low >= 0 and high <= self.full):  # also false for NaN
            text = f"has pixel values {low} to {high}, not 0 to {self.full:g}"
            raise UserError(f"{text}: {_advice(low, high)}")


@contextlib.contextmanager
def open_windows(path: str | Path, white: int = WHITE) -> Iterator[Windows]:
    """Decodes an image file in its own mode and holds it, so that parts of it can be read.

    Waits while other threads decode too many pixels, see `PixelBudget`: whoever holds windows must
    not wait for another thread that reads images.

    Args:
      path: the file.
      white: value of white in images of more than 8 bits, e.g. 4095 for a 12-bit camera. Floats
        lie in [0, 1] unless it is given.

    Raises:
      UserError: the file is missing, damaged, too large or no image, has several pages, or a value
        exceeds white.
    """
    with contextlib.ExitStack() as held:
        with opened(path) as image:
            held.enter_context(BUDGET.hold(image.width * image.height))
            decoded = DecodedImage(image)
        try:
            windows = Windows(decoded, white)
        except UserError as error:
            raise UserError(f"'{path}' {error}") from None
        yield windows


def read_image(path: str | Path, white: int = WHITE) -> np.ndarray:
    """Reads an image file; the top of this module says how.

    Returns:
      (H, W, 3) uint8.

    Raises:
      UserError: as `open_windows`.
    """
    with open_windows(path, white) as windows:
        return windows.read()


def read_resized(
    path: str | Path, size: int, filter: str = "lanczos", white: int = WHITE
) -> tuple[np.ndarray, tuple[int, int]]:
    """Reads an image file at the size of the network, with little more memory than its own mode.

    Up to 2**24 pixels bit for bit what ``transforms.resize_image`` makes of ``read_image``. Larger
    images are resized along their rows first, band by band, then along their columns.

    Returns:
      (S, S, 3) uint8, and the (H, W) of the file.

    Raises:
      UserError: as `open_windows`, or the image is too long for its width.
    """
    chosen = resampling(filter)
    with open_windows(path, white) as windows:
        height, width = windows.size
        most = most_pixels()
        if most is not None and height * size > most:
            raise UserError(f"cannot read '{path}': {height} rows are too many; cut it into parts")
        if height * width <= _AT_ONCE:
            pixels = windows.read_native()
        else:
            bands = [
                _resize(windows.read_native(top, bottom), (size, bottom - top), chosen)
                for top, bottom in row_bands(windows.size)
            ]
            pixels = np.concatenate(bands)
        return _rgb(_resize(pixels, (size, size), chosen)), (height, width)


def read_window(path: str | Path, box: tuple[int, int, int, int], white: int = WHITE) -> np.ndarray:
    """Reads rows ``box[0]`` to ``box[1]`` and columns ``box[2]`` to ``box[3]``, exclusive.

    For several parts of one file use `open_windows`, which decodes it once.

    Returns:
      (h, w, 3) uint8.

    Raises:
      UserError: as `open_windows`.
    """
    with open_windows(path, white) as windows:
        return windows.read(*box)


def image_size(path: str | Path) -> tuple[int, int]:
    """Returns the upright (H, W) of an image file from its header.

    A PNG whose orientation tag follows its pixels counts as not turned.

    Raises:
      UserError: the file is missing, damaged, too large or no image, or has several pages.
    """
    with opened(path) as image:
        width, height = image.size
        tags: Any = Image.Image.getexif(image)  # that of PNG would decode the pixels
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            tags = image.tag_v2
            width, height = tags[256], tags[257]  # as stored
        return (width, height) if tags.get(ORIENTATION, 1) in SWAPPED else (height, width)


def decode(path: str | Path) -> np.ndarray:
    """Returns (H, W, 3) uint8; or (H, W), or for colour (H, W, 3), of another type for more bits.

    Raises:
      UserError: the file is missing, damaged, too large or no image, or has several pages.
    """
    with opened(path) as image, BUDGET.hold(image.width * image.height):
        decoded = DecodedImage(image)
        pixels = decoded.read()
    if not decoded.is_deep:
        return _rgb(pixels)
    inverted = full_scale(pixels, WHITE) - pixels
    return inverted.astype(pixels.dtype) if decoded.inverted else pixels


def full_scale(pixels: np.ndarray, white: int) -> float:
    """The pixel value that is shown as white."""
    return 1.0 if pixels.dtype.kind == "f" and white == WHITE else float(white)


def depth_advice(paths: Sequence[str | Path], white: int = WHITE) -> str | None:
    """Says which white level to set if images of more than 8 bits use little of the range.

    Looks at a few files, evenly spread. Those that cannot be read are another matter.
    """
    chosen = np.linspace(0, len(paths) - 1, min(len(paths), _LOOKED_AT)).round().astype(int)
    found: list[tuple[float, float, str]] = []
    for path in (str(paths[index]) for index in chosen):
        with contextlib.suppress(UserError):
            with opened(path) as image:
                if not is_deep(image):
                    continue
            with open_windows(path, white) as windows:
                found.append((windows.largest, windows.full or 1.0, path))
    largest, full, path = max(found, default=(0.0, 0.0, ""))
    if not 1 < largest <= full / 4:
        return None
    return (
        f"16-bit images such as '{path}' have no value above {largest:g}, but {full:g} is shown as "
        f"white, so that they are dark: set data.options.white={_level(largest)}, or save them "
        "with 8 bits"
    )


def _level(largest: float) -> int | None:
    """The white level of the camera that may have made a value."""
    return next((level for level in _LEVELS if largest <= level), None)


def _advice(low: Any, high: Any) -> str:
    level = _level(float(high)) if low >= 0 else None
    if level is None or (level == WHITE and isinstance(high, np.floating)):
        return "save it with 8 or 16 bits and without sign"
    return f"set data.options.white={level}, or save it with 8 bits"


def _resize(pixels: np.ndarray, size: tuple[int, int], filter: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize(size, filter))


def _rgb(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
