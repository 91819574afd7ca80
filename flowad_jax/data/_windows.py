"""Parts of image files as they are shown, with the white level applied."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flowad_jax.data._budget import BUDGET
from flowad_jax.data._image_file import DecodedImage, TooLargeError, opened, row_bands
from flowad_jax.data._large_tiff import LargeTiff, open_large_tiff
from flowad_jax.errors import UserError

WHITE = 65535  # the largest value of 16 bits
_LEVELS = (255, 1023, 4095, 16383, WHITE)  # largest values of cameras


class Windows:
    """A decoded image file, of which parts are read; see `open_windows`.

    Attributes:
      size: (H, W), upright.
      full: the value that is shown as white; None for images of 8 bits.
      largest: the largest value where ``full`` is given.
    """

    def __init__(self, path: str | Path, decoded: DecodedImage | LargeTiff, white: int) -> None:
        """Checks the values of all pixels.

        Raises:
          UserError: a value exceeds white.
        """
        self.size = decoded.size
        self.full: float | None = None
        self.largest = 0.0
        self._decoded = decoded
        if decoded.is_deep:
            self._measure(path, white)

    def read(
        self, top: int = 0, bottom: int | None = None, left: int = 0, right: int | None = None
    ) -> np.ndarray:
        """Returns the rows and columns from ``top`` and ``left`` on, (h, w, 3) uint8."""
        return rgb(self.read_native(top, bottom, left, right))

    def read_native(
        self, top: int = 0, bottom: int | None = None, left: int = 0, right: int | None = None
    ) -> np.ndarray:
        """As `read`, but grey is (h, w)."""
        pixels = self._decoded.read(top, bottom, left, right)
        if self.full is None:
            return pixels
        shown = self.full - pixels if self._decoded.inverted else pixels
        return np.rint(shown * (255.0 / self.full)).astype(np.uint8)

    def _measure(self, path: str | Path, white: int) -> None:
        low, high = np.float64(np.inf), np.float64(-np.inf)
        for rows in row_bands(self.size):
            part = self._decoded.read(*rows)
            low, high = np.minimum(low, part.min()), np.maximum(high, part.max())  # keep NaN
        self.full, self.largest = full_scale(part, white), float(high)
        if not (low >= 0 and high <= self.full):
            values = f"pixel values {low:.6g} to {high:.6g}, not 0 to {self.full:g}"
            raise UserError(f"'{path}' has {values}: {_advice(low, high, part.dtype.kind == 'f')}")


@contextlib.contextmanager
def open_windows(path: str | Path, white: int = WHITE) -> Iterator[Windows]:
    """Holds an image file, so that parts of it can be read.

    It is decoded once, in its own mode. Only TIFF files may have more pixels than Pillow decodes,
    of which strips or tiles are decoded when they are asked for.

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
        try:
            windows = held.enter_context(opened_windows(path, white))
        except TooLargeError:
            windows = Windows(path, held.enter_context(open_large_tiff(path)), white)
        yield windows


@contextlib.contextmanager
def opened_windows(path: str | Path, white: int) -> Iterator[Windows]:
    """As `open_windows`, but refuses what has more pixels than Pillow decodes."""
    with contextlib.ExitStack() as held:
        with opened(path) as image:
            held.enter_context(BUDGET.hold(image.width * image.height))
            decoded = DecodedImage(image)
        yield Windows(path, decoded, white)


def full_scale(pixels: np.ndarray, white: int) -> float:
    """The pixel value that is shown as white."""
    return 1.0 if pixels.dtype.kind == "f" and white == WHITE else float(white)


def level(largest: float) -> int | None:
    """The white level of the camera that may have made a value."""
    return next((level for level in _LEVELS if largest <= level), None)


def _advice(low: float, high: float, is_float: bool) -> str:
    white = level(high) if low >= 0 else None
    # That of floats cannot be set to 65535, which stands for not being set.
    if white is None or (white == WHITE and is_float):
        return "save it with 8 or 16 bits and without sign"
    return f"set data.options.white={white}, or save it with 8 bits"


def rgb(pixels: np.ndarray) -> np.ndarray:
    """Repeats grey (h, w) as (h, w, 3)."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
