"""TIFF files with more pixels than Pillow decodes, such as those of line cameras, part by part."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from flowad_jax.data.decoded_image import ORIENTATION
from flowad_jax.data.image_file import (
    SUBFILE,
    most_pixels,
    several_pages,
    unreadable,
)
from flowad_jax.errors import UserError
from flowad_jax.files import open_regular

_DTYPES = ("uint8", "uint16", "float32")
_PLAIN_OR_DEFLATE = (1, 8, 32946)  # compressions that tifffile decodes by itself


class NotInPartsError(Exception):
    """A file has to be decoded whole."""


class LargeTiff:
    """Reads parts of an open file; has the attributes of `DecodedImage`. For one thread."""

    def __init__(self, path: str | Path, file: tifffile.TiffFile) -> None:
        page: Any = file.pages.first
        pages: Any = list(file.pages)
        if any(not other.tags.valueof(SUBFILE, 0) & 5 for other in pages[1:]):
            raise several_pages(len(pages))
        if (
            page.photometric not in (0, 1, 2)
            or (page.planarconfig != 1 and page.samplesperpixel > 1)
            or page.dtype is None
            or page.dtype.name not in _DTYPES
            or page.tags.valueof(ORIENTATION, 1) != 1
            or page.compression not in _PLAIN_OR_DEFLATE
        ):
            raise NotInPartsError
        most, self._strip = most_pixels(), page.tilelength if page.is_tiled else page.rowsperstrip
        if most and not page.is_contiguous and self._strip * page.imagewidth > most:
            raise NotInPartsError
        self.size: tuple[int, int] = (page.imagelength, page.imagewidth)
        self.is_deep, self.inverted = page.dtype != np.uint8, page.photometric == 0
        self._path, self._file, self._page = path, file.filehandle, page
        self._rows, self._band, self._map = (0, 0), np.empty(0), None
        if page.is_contiguous:
            shape = (*self.size, page.samplesperpixel)
            dtype = page.dtype.newbyteorder(file.byteorder)
            self._map = np.memmap(self._file, dtype, "r", page.dataoffsets[0], shape)

    def read(
        self, top: int = 0, bottom: int | None = None, left: int = 0, right: int | None = None
    ) -> np.ndarray:
        """Returns a part, as `DecodedImage.read`; rows that are asked for again are kept."""
        rows = top, self.size[0] if bottom is None else bottom
        if self._map is not None:
            part = self._map[slice(*rows), left:right]
        else:
            if rows != self._rows:
                try:
                    self._band, self._rows = self._decode(*rows), rows
                except Exception as error:  # as in `open_image`
                    raise unreadable(self._path, error) from error
            part = self._band[:, left:right]
        part = part[..., :3] if part.shape[2] > 2 else part[..., 0]
        # Pillow turns 8 bits around itself, so that here, too, it is done before.
        part = 255 - part if self.inverted and not self.is_deep else part
        return part.astype(part.dtype.newbyteorder("="))

    def _decode(self, top: int, bottom: int) -> np.ndarray:
        """Decodes the strips or tiles of some rows, (bottom - top, W, samples)."""
        page, high = self._page, self._strip
        across = -(-self.size[1] // page.tilewidth) if page.is_tiled else 1
        band = np.empty((bottom - top, self.size[1], page.samplesperpixel), page.dtype)
        for index in range(top // high * across, -(-bottom // high) * across):
            self._file.seek(page.dataoffsets[index])
            data = self._file.read(page.databytecounts[index])
            pixels, (_, _, y, x, _), _ = page.decode(data, index)
            if pixels is None or len(data) < page.databytecounts[index]:
                raise EOFError("a part of it is missing")
            first, last = max(top, y), min(bottom, y + pixels.shape[1])
            piece = pixels[0, first - y : last - y, : self.size[1] - x]
            band[first - top : last - top, x : x + piece.shape[1]] = piece
        return band


@contextlib.contextmanager
def open_large_tiff(path: str | Path) -> Iterator[LargeTiff]:
    """Opens a TIFF file for reading it in parts.

    Raises:
      NotInPartsError: it is no TIFF, or of a kind that can only be decoded whole.
      UserError: it is missing or damaged.
    """
    with contextlib.ExitStack() as held:
        try:
            file = held.enter_context(open_regular(path))
            tiff = LargeTiff(path, held.enter_context(tifffile.TiffFile(file)))
        except UserError as error:
            raise UserError(f"cannot read '{path}': {error}") from None
        except (NotInPartsError, tifffile.TiffFileError):
            raise NotInPartsError from None
        except Exception as error:  # as in `open_image`
            raise unreadable(path, error) from error
        yield tiff
