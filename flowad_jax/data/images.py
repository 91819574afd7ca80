"""Image files as arrays: whole, at the size of the network, or part by part.

The orientation tag is applied. Grey is repeated, alpha is dropped (the stored colour counts, not
its opacity), palettes and CMYK become RGB. Values of more than 8 bits are divided by
``white / 255`` and rounded, never clipped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from flowad_jax.canvas import Canvas, CanvasLike
from flowad_jax.data.decoded_image import SWAPPED, DecodedImage, is_deep, row_bands
from flowad_jax.data.image_file import (
    TooLargeError,
    decode,
    most_pixels,
    open_image,
    orientation_tag,
)
from flowad_jax.data.large_tiff import LargeTiff, NotInPartsError, open_large_tiff
from flowad_jax.data.transforms import AT_ONCE, padded, resampling, resize
from flowad_jax.errors import UserError

WHITE = 65535  # the largest value of 16 bits
_LEVELS = (255, 1023, 4095, 16383, WHITE)  # largest values of cameras
_SAMPLED = 8  # files for `depth_advice`


class Windows:
    """A decoded image file, of which parts are read; see `open_windows`.

    Attributes:
      size: (H, W), upright.
      full: the value that is shown as white; None for images of 8 bits.
      largest: the largest value where ``full`` is given.
    """

    def __init__(self, path: str | Path, decoded: DecodedImage | LargeTiff, white: int) -> None:
        self.size = decoded.size
        self.full: float | None = None
        self.largest = 0.0
        self._decoded = decoded
        if decoded.is_deep:
            self._check_range(path, white)

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
        return to_8_bits(shown, self.full)

    def _check_range(self, path: str | Path, white: int) -> None:
        low, high = np.float64(np.inf), np.float64(-np.inf)
        for rows in row_bands(self.size):
            part = self._decoded.read(*rows)
            low, high = np.minimum(low, part.min()), np.maximum(high, part.max())  # keep NaN
        self.full, self.largest = full_scale(part, white), float(high)
        if low >= 0 and high <= self.full:
            return
        level = white_level(high) if low >= 0 else None
        # That of floats cannot be set to 65535, which stands for not being set.
        if level is None or (level == WHITE and part.dtype.kind == "f"):
            advice = "save it with 8 or 16 bits and without sign"
        else:
            advice = f"set data.options.white={level}, or save it with 8 bits"
        values = f"pixel values {low:.6g} to {high:.6g}, not 0 to {self.full:g}"
        raise UserError(f"'{path}' has {values}: {advice}")


@contextlib.contextmanager
def open_windows(path: str | Path, white: int = WHITE) -> Iterator[Windows]:
    """Holds an image file, so that parts of it can be read.

    It is decoded once, see `image_file.decode`. Files with more pixels than Pillow's limit are
    decoded by the strips or tiles that are asked for, if they are TIFF of a usual kind, otherwise
    whole in their own pixel mode.

    Args:
      path: the file.
      white: value of white in images of more than 8 bits, e.g. 4095 for a 12-bit camera. Floats
        lie in [0, 1] unless it is given.

    Raises:
      UserError: as `open_image`, or a value exceeds white.
    """
    with contextlib.ExitStack() as held:
        decoded: DecodedImage | LargeTiff
        try:
            decoded = held.enter_context(decode(path))
        except TooLargeError:
            try:
                decoded = held.enter_context(open_large_tiff(path))
            except NotInPartsError:
                decoded = held.enter_context(decode(path, any_size=True))
        yield Windows(path, decoded, white)


def read_image(path: str | Path, white: int = WHITE) -> np.ndarray:
    """Reads an image file as (H, W, 3) uint8; raises as `open_windows`."""
    with decode(path) as decoded:
        return Windows(path, decoded, white).read()


def read_resized(
    path: str | Path, size: CanvasLike, filter: str = "lanczos", white: int = WHITE
) -> tuple[np.ndarray, tuple[int, int]]:
    """Reads an image file at the size of the network, with little more memory than its own mode.

    Up to 2**24 pixels bit for bit what `transforms.resize_image` makes of `read_image`. Larger
    images are resized along their rows first, band by band, then along their columns.

    Returns:
      Pixels of the canvas, (h, w, 3) uint8, and the (H, W) of the file.

    Raises:
      UserError: as `open_windows`, or the image is too long for its width.
    """
    chosen, most, canvas = resampling(filter), most_pixels(), Canvas.of(size)

    def resized_to(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return np.asarray(resize(Image.fromarray(pixels), size, chosen))

    with decode(path) as decoded:
        windows = Windows(path, decoded, white)
        (top, left, height, width), place = canvas.seen(windows.size), canvas.place(windows.size)
        if most is not None and height * place.width > most:
            raise UserError(f"cannot read '{path}': {height} rows are too many; cut it into parts")

        def read(first: int, last: int) -> np.ndarray:
            return windows.read_native(top + first, top + last, left, left + width)

        if height * width <= AT_ONCE:
            pixels = read(0, height)
        else:
            bands = row_bands((height, width))
            pixels = np.concatenate(
                [resized_to(read(*rows), (place.width, rows[1] - rows[0])) for rows in bands]
            )
        resized = resized_to(pixels, (place.width, place.height))
        return rgb(padded(resized, place, canvas)), windows.size


def image_size(path: str | Path) -> tuple[int, int]:
    """Returns the upright (H, W) of an image file from its header; raises as `open_image`."""
    with open_image(path) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):
            width, height = image.tag_v2[256], image.tag_v2[257]  # as stored
        return (width, height) if orientation_tag(image) in SWAPPED else (height, width)


def depth_advice(paths: Sequence[str | Path], white: int = WHITE) -> str | None:
    """Says which white level to set if images of more than 8 bits use little of the range.

    Looks at a few files, evenly spread. Those that cannot be read are another matter.
    """
    chosen = np.linspace(0, len(paths) - 1, min(len(paths), _SAMPLED)).round().astype(int)
    found: list[tuple[float, float, str]] = []
    for path in (str(paths[index]) for index in chosen):
        with contextlib.suppress(UserError):
            with open_image(path) as image:
                if not is_deep(image):
                    continue
            with decode(path) as decoded:
                windows = Windows(path, decoded, white)
                found.append((windows.largest, windows.full or 1.0, path))
    largest, full, path = max(found, default=(0.0, 0.0, ""))
    key = "data.options.white"
    return dark_advice(largest, full, f"16-bit images such as '{path}'", key)


def dark_advice(largest: float, full: float, what: str, key: str) -> str | None:
    """Says what to set a ``key`` to if no value exceeds a quarter of what is shown as white."""
    if not 1 < largest <= full / 4:
        return None
    return (
        f"{what} have no value above {largest:g}, but {full:g} is shown as white, so that they are "
        f"dark: set {key}={white_level(largest)}, or save them with 8 bits"
    )


def full_scale(pixels: np.ndarray, white: int) -> float:
    """The pixel value that is shown as white."""
    return 1.0 if pixels.dtype.kind == "f" and white == WHITE else float(white)


def to_8_bits(pixels: np.ndarray, full: float) -> np.ndarray:
    """Scales pixels so that the value ``full`` becomes 255, and rounds them."""
    return np.rint(pixels * (255.0 / full)).astype(np.uint8)


def white_level(largest: float) -> int | None:
    """The white level of the camera that may have made a value."""
    return next((level for level in _LEVELS if largest <= level), None)


def rgb(pixels: np.ndarray) -> np.ndarray:
    """Repeats grey (h, w) as (h, w, 3)."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
