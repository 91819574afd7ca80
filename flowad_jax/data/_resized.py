"""Images at the size of the input, decoded once as long as memory allows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flowad_jax.data import transforms
from flowad_jax.data.images import WHITE, read_resized
from flowad_jax.data.record import Record, Source
from flowad_jax.errors import UserError

Resized = tuple[np.ndarray, ...]  # (S, S, 3) uint8, and for records (S, S) bool
Key = int | tuple[int | Path, int]  # a record, or the image of one or of a file at some size


class ResizedImages:
    """The records of a source, and image files beside it, kept while they fit into a budget.

    Attributes:
      size: side S of records.
    """

    def __init__(self, source: Source, size: int, filter: str, budget: int) -> None:
        """Decodes nothing yet.

        Args:
          source: the records.
          size: side S of records.
          filter: Pillow's filter for resizing images.
          budget: bytes to keep.
        """
        self._source, self.size, self._filter = source, size, filter
        self._budget = self._left = budget
        self._kept: dict[Key, Resized] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process starts with nothing kept."""
        return self.__dict__ | {"_kept": {}, "_left": self._budget, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Gives the copy a lock of its own."""
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def record(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the image (S, S, 3) uint8 and the mask (S, S) bool of a record.

        Raises:
          UserError: it cannot be read.
        """
        image, mask = self._get(index, lambda: self._read(index, self.size)[:2])
        return image, mask

    def image(self, index: int, size: int) -> np.ndarray:
        """Returns the image of a record as (size, size, 3) uint8, resized from its original.

        Raises:
          UserError: it cannot be read.
        """
        if size == self.size:
            return self.record(index)[0]
        return self._get((index, size), lambda: (self._read(index, size).image,))[0]

    def file(self, path: Path, size: int) -> np.ndarray:
        """Returns an image file as (size, size, 3) uint8.

        Raises:
          UserError: it cannot be read.
        """
        # Material for 12-bit images is most likely of the same camera.
        white = getattr(self._source, "white", WHITE)
        load = partial(read_resized, path, size, self._filter, white)
        return self._get((path, size), lambda: load()[:1])[0]

    def clear(self) -> None:
        """Frees the memory; an image that is asked for again is decoded again."""
        with self._lock:
            self._kept.clear()
            self._left = self._budget

    def _read(self, index: int, size: int) -> Record:
        try:
            return resized_record(self._source, index, size, self._filter)
        except (OSError, ValueError, MemoryError) as error:  # a source of someone else's
            raise UserError(f"cannot read '{self._source.paths[index]}': {error}") from error

    def _get(self, key: Key, load: Callable[[], Resized]) -> Resized:
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        loaded = load()
        need = sum(array.nbytes for array in loaded)
        with self._lock:
            if key not in self._kept and need <= self._left:
                self._left -= need
                self._kept[key] = loaded
        return loaded


def resized_record(source: Source, index: int, size: int, filter: str) -> Record:
    """Reads a record with image and mask of side S.

    Sources of image files have a method ``resized(index, size, filter)`` that never holds the
    whole image in RGB; whatever another source hands out is resized here.
    """
    if hasattr(source, "resized"):
        return source.resized(index, size, filter)
    record = source[index]
    return record._replace(
        image=transforms.resize_image(record.image, size, filter),
        mask=transforms.resize_mask(record.mask, size),
    )
