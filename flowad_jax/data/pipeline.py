"""Batches of normalised images in a reproducible order, prepared by threads.

Which batch comes when, and what is in it, depends only on the seed, the epoch and the record.
Decoding and resizing release the interpreter lock, so threads are enough and nothing is copied
between processes.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from flowad_jax.data import transforms
from flowad_jax.data.record import Source
from flowad_jax.errors import UserError
from flowad_jax.types import Batch

_log = logging.getLogger(__name__)

Resized = tuple[np.ndarray, np.ndarray]  # (S, S, 3) uint8 and (S, S) bool


class Rows(NamedTuple):
    """The records of one batch, without their pixels.

    Attributes:
      records: (B,) int64, indices into the source; rows that pad repeat the real ones.
      label: (B,) int32, 0 for padding.
      weight: (B,) float32, 0 for padding.
    """

    records: np.ndarray
    label: np.ndarray
    weight: np.ndarray


class Loader:
    """An endless supply of epochs over one ``Source``.

    Attributes:
      source: the records; its ``labels``, ``kinds`` and ``paths`` are in the order of an epoch
        that is not shuffled.
      image_size: side of the images and masks.
      batch_size: rows per batch, at most the number of records.
    """

    def __init__(
        self,
        source: Source,
        image_size: int,
        batch_size: int,
        mean: transforms.Triple,
        std: transforms.Triple,
        seed: int = 0,
        *,
        rotation_degrees: float = 5.0,
        shuffle: bool = True,
        drop_last: bool = False,
        filter: str = "lanczos",
        cache_bytes: int = 2**30,
        workers: int = 2,
    ) -> None:
        """Checks the settings; nothing is decoded before the first batch is asked for.

        Args:
          source: the records.
          image_size: side S of the images and masks of a batch.
          batch_size: rows per batch; a set with fewer records is one batch.
          mean: subtracted from pixels in [0, 1].
          std: divides what is left.
          seed: source of all randomness, not negative.
          rotation_degrees: bound of the uniform random rotation; 0 turns it off.
          shuffle: draw a new order for each epoch; off for evaluation.
          drop_last: leave out the last batch if it is not full, as the CFLOW-AD reference does.
            Otherwise its missing rows are filled up and have weight 0.
          filter: Pillow's filter for resizing images.
          cache_bytes: memory for resized images, which then need no decoding in later epochs.
          workers: threads; 0 works in the caller's thread.

        Raises:
          UserError: a value is out of range, or ``drop_last`` leaves no batch.
        """
        if len(source) == 0:
            raise UserError("the data set has no images: check data.root and data.category")
        _at_least(1, image_size=image_size, batch_size=batch_size)
        _at_least(0, seed=seed, rotation_degrees=rotation_degrees, workers=workers)
        transforms.resampling(filter)
        if batch_size > len(source):
            sizes = f"batch_size {batch_size} is larger than the set of {len(source)} images"
            if drop_last:
                raise UserError(f"{sizes} and drop_last leaves no batch: lower it or turn it off")
            _log.warning("%s: using %d", sizes, len(source))
        self.source = source
        self.image_size = image_size
        self.batch_size = min(batch_size, len(source))
        self._mean, self._std = mean, std
        self._seed, self._rotation, self._shuffle = seed, rotation_degrees, shuffle
        self._drop_last = drop_last
        self._workers = workers
        self._cache = _ResizedRecords(source, image_size, filter, cache_bytes)

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(len(self.source), self.batch_size)
        return whole if self._drop_last or not rest else whole + 1

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of one epoch, the first ``start`` of them left out.

        At most ``workers + 1`` batches are prepared ahead. Closing the generator stops the
        threads.

        Raises:
          UserError: a record cannot be read; the message names its file.
        """
        plan = self.rows(epoch, start)
        if not self._workers:
            yield from (self._batch(epoch, rows) for rows in plan)
            return
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="loader")
        try:
            futures = (pool.submit(self._batch, epoch, rows) for rows in plan)
            yield from _ahead(futures, self._workers + 1)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def rows(self, epoch: int, start: int = 0) -> Iterator[Rows]:
        """Yields which records make up the batches of `epoch`; decodes nothing."""
        order, size = self._order(epoch), self.batch_size
        for batch in range(start, len(self)):
            real = order[batch * size : (batch + 1) * size]
            weight = (np.arange(size) < len(real)).astype(np.float32)
            # Padding repeats real images: blank ones may overflow a flow, and 0 * inf is not 0.
            records = np.resize(real, size)
            yield Rows(records, np.where(weight > 0, self.source.labels[records], 0), weight)

    @property
    def deterministic(self) -> bool:
        """Whether a record looks the same in every epoch."""
        return not self._rotation

    def in_order(self) -> Loader:
        """Returns a loader of all records as they are, which shares the decoded images."""
        plain = copy.copy(self)
        plain._shuffle, plain._drop_last, plain._rotation = False, False, 0.0
        return plain

    def forget_images(self) -> None:
        """Frees the memory of decoded images; one that is asked for again is decoded again."""
        self._cache.clear()

    def _order(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(len(self.source))
        draws = self._generator(epoch, 0).random(len(self.source))
        return np.argsort(draws, kind="stable")

    def _generator(self, epoch: int, stream: int) -> np.random.Generator:
        """Stream 0 is the order of an epoch, stream 1 + i belongs to record i.

        A key must have as many numbers for the one as for the other, because NumPy takes
        ``[seed, epoch]`` and ``[seed, epoch, 0]`` for the same.
        """
        return np.random.default_rng([self._seed, epoch, stream])

    def _batch(self, epoch: int, rows: Rows) -> Batch:
        real = rows.records[rows.weight > 0]
        images, masks = zip(*(self._augmented(epoch, int(i)) for i in real), strict=True)
        image = np.resize(images, (self.batch_size, *images[0].shape))
        mask = np.zeros((self.batch_size, *masks[0].shape), bool)
        mask[: len(real)] = masks
        image = transforms.normalize(image, self._mean, self._std)
        return Batch(image, mask, rows.label, rows.weight)

    def _augmented(self, epoch: int, index: int) -> Resized:
        image, mask = self._cache[index]
        if not self._rotation:
            return image, mask
        draw = self._generator(epoch, 1 + index).random()
        degrees = (2 * draw - 1) * self._rotation
        return transforms.rotate(image, degrees), transforms.rotate(mask, degrees)


class _ResizedRecords:
    """Records at the size of the input, kept while they fit into ``budget`` bytes."""

    def __init__(self, source: Source, size: int, filter: str, budget: int) -> None:
        self._source, self._size, self._filter = source, size, filter
        self._budget = self._left = budget
        self._kept: dict[int, Resized] = {}
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> Resized:
        kept = self._kept.get(index)
        return kept if kept is not None else self._keep(index, self._load(index))

    def _load(self, index: int) -> Resized:
        try:
            record = self._source[index]
        except (OSError, ValueError, MemoryError) as error:  # a source of someone else's
            raise UserError(f"cannot read '{self._source.paths[index]}': {error}") from error
        image = transforms.resize_image(record.image, self._size, self._filter)
        return image, transforms.resize_mask(record.mask, self._size)

    def _keep(self, index: int, resized: Resized) -> Resized:
        need = sum(array.nbytes for array in resized)
        with self._lock:
            if index not in self._kept and need <= self._left:
                self._left -= need
                self._kept[index] = resized
        return resized

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._left = self._budget


def _ahead(futures: Iterable[Future[Batch]], depth: int) -> Iterator[Batch]:
    """Yields results in order while ``depth`` more are on their way."""
    waiting: deque[Future[Batch]] = deque()
    for future in futures:
        waiting.append(future)
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _at_least(lowest: int, **values: float) -> None:
    for name, value in values.items():
        if not value >= lowest:
            raise UserError(f"data.{name}={value} is too small: use {lowest} or more")
