"""Images at the size of the input, decoded once as long as memory allows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flowad_jax.canvas import Canvas, CanvasLike
from flowad_jax.data import transforms
from flowad_jax.data.images import WHITE, read_resized
from flowad_jax.data.record import Record, Source
from flowad_jax.errors import UserError

Resized = tuple[np.ndarray, ...]  # (H, W, 3) uint8, and for records (H, W) bool
Key = int | tuple[int | Path, Canvas]  # a record, or the image of one or of a file at some size


class ResizedImages:
    """The records of a source, and image files beside it, kept while they fit into a budget.

    All methods raise a `UserError` if a file cannot be read.
    """

    def __init__(self, source: Source, size: CanvasLike, filter: str, budget: int) -> None:
        """Decodes nothing yet.

        Args:
          source: the records.
          size: the canvas of records, H x W.
          filter: Pillow's filter for resizing images.
          budget: bytes to keep.
        """
        self._source, self.canvas, self._filter = source, Canvas.of(size), filter
        self._budget = self._left = budget
        self._kept: dict[Key, Resized] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        """A copy in another process starts with nothing kept."""
        return ResizedImages, (self._source, self.canvas, self._filter, self._budget)

    def record(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the image (H, W, 3) uint8 and the mask (H, W) bool of a record."""
        image, mask = self._get(index, lambda: self._read(index, self.canvas)[:2])
        return image, mask

    def image(self, index: int, canvas: Canvas) -> np.ndarray:
        """Returns the image of a record on another canvas, made from its original."""
        if canvas == self.canvas:
            return self.record(index)[0]
        return self._get((index, canvas), lambda: self._read(index, canvas)[:1])[0]

    def file(self, path: Path, canvas: Canvas) -> np.ndarray:
        """Returns an image file on a canvas."""
        # Material for 12-bit images is most likely of the same camera.
        white = getattr(self._source, "white", WHITE)
        pixels = self._get(
            (path, canvas), lambda: read_resized(path, canvas, self._filter, white)[:1]
        )
        return pixels[0]

    def clear(self) -> None:
        """Frees the memory; an image that is asked for again is decoded again."""
        with self._lock:
            self._kept.clear()
            self._left = self._budget

    def _read(self, index: int, canvas: Canvas) -> Record:
        try:
            return resized_record(self._source, index, canvas, self._filter)
        except (OSError, ValueError, MemoryError) as error:  # a source of someone else's
            raise UserError(f"cannot read '{self._source.paths[index]}': {error}") from error

    def _get(self, key: Key, load: Callable[[], Resized]) -> Resized:
        if (kept := self._kept.get(key)) is not None:
            return kept
        loaded = load()
        need = sum(array.nbytes for array in loaded)
        with self._lock:
            if key not in self._kept and need <= self._left:
                self._left -= need
                self._kept[key] = loaded
        return loaded


def image_shape(source: Source, index: int) -> tuple[int, ...]:
    """Returns the (H, W) of a record's image.

    Sources of image files have a method ``shape(index)`` that decodes nothing.
    """
    if hasattr(source, "shape"):
        return source.shape(index)
    return source[index].image.shape[:2]


def resized_record(source: Source, index: int, size: CanvasLike, filter: str) -> Record:
    """Reads a record with image and mask on a canvas.

    Sources of image files have a method ``resized(index, size, filter)`` that never holds the
    whole image in RGB; whatever another source returns is resized here.
    """
    if hasattr(source, "resized"):
        return source.resized(index, size, filter)
    record = source[index]
    return record._replace(
        image=transforms.resize_image(record.image, size, filter),
        mask=transforms.resize_mask(record.mask, size),
    )
