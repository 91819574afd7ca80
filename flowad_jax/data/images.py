"""How image files become arrays.

Read are BMP, GIF, JPEG, JPEG 2000, PNG, PPM (with PGM, PBM and PFM), TIFF and WebP, whatever the
name of the file says. A file with several pages or frames is refused, unless the others are
thumbnails. The orientation tag is applied. Grey is repeated, alpha is dropped (the stored colour
counts, not its opacity), palettes and CMYK become RGB. Values of more than 8 bits are divided by
``white / 255`` and rounded, never clipped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from flowad_jax.data._budget import BUDGET
from flowad_jax.data._image_file import (
    ORIENTATION,
    SWAPPED,
    DecodedImage,
    is_deep,
    is_tagged_late,
    most_pixels,
    opened,
    row_bands,
)
from flowad_jax.data._windows import WHITE, full_scale, level, open_windows, opened_windows, rgb
from flowad_jax.data.transforms import AT_ONCE, resampling
from flowad_jax.errors import UserError

_LOOKED_AT = 8  # files for `depth_advice`


def read_image(path: str | Path, white: int = WHITE) -> np.ndarray:
    """Reads an image file; the top of this module says how.

    Returns:
      (H, W, 3) uint8.

    Raises:
      UserError: as `open_windows`.
    """
    with opened_windows(path, white) as windows:
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
    with opened_windows(path, white) as windows:
        height, width = windows.size
        most = most_pixels()
        if most is not None and height * size > most:
            raise UserError(f"cannot read '{path}': {height} rows are too many; cut it into parts")
        if height * width <= AT_ONCE:
            pixels = windows.read_native()
        else:
            bands = [
                _resize(windows.read_native(top, bottom), (size, bottom - top), chosen)
                for top, bottom in row_bands(windows.size)
            ]
            pixels = np.concatenate(bands)
        return rgb(_resize(pixels, (size, size), chosen)), (height, width)


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

    Only a PNG that is tagged behind its pixels, as some programs do it, is decoded.

    Raises:
      UserError: the file is missing, damaged, too large or no image, or has several pages.
    """
    with opened(path) as image:
        width, height = image.size
        # That of PNG decodes the pixels.
        late = image.format == "PNG" and is_tagged_late(image)
        tags: Any = image.getexif() if late else Image.Image.getexif(image)
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
        return rgb(pixels)
    inverted = full_scale(pixels, WHITE) - pixels
    return inverted.astype(pixels.dtype) if decoded.inverted else pixels


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
            with opened_windows(path, white) as windows:
                found.append((windows.largest, windows.full or 1.0, path))
    largest, full, path = max(found, default=(0.0, 0.0, ""))
    if not 1 < largest <= full / 4:
        return None
    return (
        f"16-bit images such as '{path}' have no value above {largest:g}, but {full:g} is shown as "
        f"white, so that they are dark: set data.options.white={level(largest)}, or save them "
        "with 8 bits"
    )


def _resize(pixels: np.ndarray, size: tuple[int, int], filter: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize(size, filter))
