"""TIFF files with more pixels than Pillow decodes, such as those of line cameras, part by part."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from flowad_jax.data._image_file import (
    ORIENTATION,
    TooLargeError,
    most_pixels,
    several_pages,
    unreadable,
)
from flowad_jax.errors import UserError
from flowad_jax.files import open_regular

_DTYPES = ("uint8", "uint16", "float32")
_SUBFILE = 254


class LargeTiff:
    """Reads parts of an open file; otherwise as `DecodedImage`. For one thread.

    Attributes:
      size: (H, W).
      is_deep: whether `read` returns more than 8 bits.
      inverted: whether the largest value is black.
    """

    def __init__(self, path: str | Path, file: tifffile.TiffFile) -> None:
        """Reads the header.

        Raises:
          UserError: the file cannot be read in parts; the message begins behind its name.
        """
        page, self._path = _only_page(file), path
        self._page = page
        self.size: tuple[int, int] = (page.imagelength, page.imagewidth)
        self.is_deep, self.inverted = page.dtype != np.uint8, page.photometric == 0
        self._file, self._rows, self._band = file, (0, 0), np.empty(0)
        self._map = None
        if page.is_contiguous:
            shape = (*self.size, page.samplesperpixel)
            kind = page.dtype.newbyteorder(file.byteorder)
            self._map = np.memmap(file.filehandle, kind, "r", page.dataoffsets[0], shape)

    def read(
        self, top: int = 0, bottom: int | None = None, left: int = 0, right: int | None = None
    ) -> np.ndarray:
        """Returns a part, as `DecodedImage.read`; rows that are asked for again are kept.

        Raises:
          UserError: the file is damaged, or its compression is not read here.
        """
        rows = top, self.size[0] if bottom is None else bottom
        if self._map is not None:
            part = self._map[slice(*rows), left:right]
        else:
            if rows != self._rows:
                try:
                    self._band, self._rows = self._decode(*rows), rows
                except Exception as error:  # as in `opened`
                    if "imagecodecs" in str(error):
                        fix = "save it without compression or with deflate"
                        raise UserError(f"cannot read '{self._path}' in parts: {fix}") from error
                    raise unreadable(self._path, error) from error
            part = self._band[:, left:right]
        part = part[..., :3] if part.shape[2] > 2 else part[..., 0]
        # Pillow turns 8 bits around itself, so that here, too, it is done before.
        part = 255 - part if self.inverted and not self.is_deep else part
        return part.astype(part.dtype.newbyteorder("="))

    def _decode(self, top: int, bottom: int) -> np.ndarray:
        """Decodes the strips or tiles of some rows, (bottom - top, W, samples)."""
        page = self._page
        high = page.tilelength if page.is_tiled else page.rowsperstrip
        across = -(-self.size[1] // page.tilewidth) if page.is_tiled else 1
        band = np.empty((bottom - top, self.size[1], page.samplesperpixel), page.dtype)
        for index in range(top // high * across, -(-bottom // high) * across):
            self._file.filehandle.seek(page.dataoffsets[index])
            data = self._file.filehandle.read(page.databytecounts[index])
            pixels, (_, _, y, x, _), _ = page.decode(data, index)
            if pixels is None or len(data) < page.databytecounts[index]:
                raise EOFError("a part of it is missing")
            first, last = max(top, y), min(bottom, y + pixels.shape[1])
            piece = pixels[0, first - y : last - y, : self.size[1] - x]
            band[first - top : last - top, x : x + piece.shape[1]] = piece
        return band


def _only_page(file: tifffile.TiffFile) -> Any:
    page, most = file.pages.first, most_pixels()
    pages: Any = list(file.pages)
    if any(not p.tags.valueof(_SUBFILE, 0) & 5 for p in pages[1:]):
        raise several_pages(len(pages))
    rows = page.tilelength if page.is_tiled else page.rowsperstrip
    if (
        page.photometric not in (0, 1, 2)
        or (page.planarconfig != 1 and page.samplesperpixel > 1)
        or page.dtype is None
        or page.dtype.name not in _DTYPES
        or page.tags.valueof(ORIENTATION, 1) != 1
    ):
        raise UserError("only upright grey or RGB can be this large; make it smaller")
    if most is not None and not page.is_contiguous and rows * page.imagewidth > most:
        raise UserError("its strips are too large to be read one by one; save it with smaller ones")
    return page


@contextlib.contextmanager
def open_large_tiff(path: str | Path) -> Iterator[LargeTiff]:
    """Opens a TIFF file for reading it in parts.

    Raises:
      UserError: the file is missing, damaged or cannot be read in parts.
    """
    with contextlib.ExitStack() as held:
        try:
            file = held.enter_context(open_regular(path))
            tiff = LargeTiff(path, held.enter_context(tifffile.TiffFile(file)))
        except UserError as error:
            raise UserError(f"cannot read '{path}': {error}") from None
        except tifffile.TiffFileError:
            fix = "make it smaller, or save it as TIFF without compression"
            why = f"it has more than {most_pixels()} pixels; {fix}"
            raise TooLargeError(f"cannot read '{path}': {why}") from None
        except Exception as error:  # as in `opened`
            raise unreadable(path, error) from error
        yield tiff
