"""Batches of normalised images in a reproducible order, prepared by threads.

Which batch comes when, and what is in it, depends only on the seed, the epoch and the record.
Decoding, resizing and blending release the interpreter lock, so threads are enough and nothing is
copied between processes.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from flowad_jax.data import transforms
from flowad_jax.data._resized import ResizedImages
from flowad_jax.data.augment import Augmentation, Row, Synthesis
from flowad_jax.data.record import Source
from flowad_jax.errors import UserError
from flowad_jax.types import Batch

_log = logging.getLogger(__name__)


class Rows(NamedTuple):
    """The records of one batch, without their pixels.

    Attributes:
      records: (B,) int64, indices into the source; rows that pad repeat the real ones.
      label: (B,) int32, 0 for padding.
      weight: (B,) float32, 0 for padding.
      visits: (B,) int64, numbers of the visits within an epoch, which differ where records do not.
    """

    records: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    visits: np.ndarray


class Loader:
    """An endless supply of epochs over one ``Source``.

    Attributes:
      source: the records; its ``labels``, ``kinds`` and ``paths`` are in the order of an epoch
        that is not shuffled.
      image_size: side of the images and masks.
      batch_size: images per batch, at most the visits of an epoch. Synthetic versions that are
        put beside them are not counted.
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
        sharpen: float = 0.0,
        share_sharpening: bool = False,
        repeat: int = 1,
        synthesis: Synthesis | None = None,
    ) -> None:
        """Checks the settings; nothing is decoded before the first batch is asked for.

        Args:
          source: the records.
          image_size: side S of the images and masks of a batch.
          batch_size: visits per batch; an epoch with fewer is one batch.
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
          sharpen: probability that an image is sharpened.
          share_sharpening: sharpen the image that lends material to synthesis with its target.
          repeat: visits of every record in an epoch, each with random numbers of its own.
          synthesis: puts synthetic anomalies into the batches; with ``"pairs"`` their arrays have
            twice ``batch_size`` rows.

        Raises:
          UserError: a value is out of range, or ``drop_last`` leaves no batch.
        """
        if len(source) == 0:
            raise UserError("the data set has no images: check data.root and data.category")
        _at_least(1, image_size=image_size, batch_size=batch_size, repeat=repeat)
        _at_least(0, seed=seed, workers=workers)
        transforms.resampling(filter)
        self._augmentation = Augmentation(rotation_degrees, sharpen, share_sharpening, synthesis)
        self._augmentation.check()
        self._visits = len(source) * repeat
        if batch_size > self._visits:
            times = f", each visited {repeat} times" if repeat > 1 else ""
            sizes = f"batch_size {batch_size} is larger than the set of {len(source)} images{times}"
            if drop_last:
                raise UserError(f"{sizes} and drop_last leaves no batch: lower it or turn it off")
            _log.warning("%s: using %d", sizes, self._visits)
        self.source = source
        self.image_size = image_size
        self.batch_size = min(batch_size, self._visits)
        self._mean, self._std = mean, std
        self._seed, self._shuffle, self._drop_last = seed, shuffle, drop_last
        self._workers = workers
        self._images = ResizedImages(source, image_size, filter, cache_bytes)

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(self._visits, self.batch_size)
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
        """Yields which records make up the batches of `epoch`, synthesis aside; decodes nothing."""
        visits = np.arange(self._visits)
        if self._shuffle:
            draws = self._generator(epoch, 0).random(self._visits)
            visits = np.argsort(draws, kind="stable")
        size = self.batch_size
        for batch in range(start, len(self)):
            weight = (np.arange(size) < self.images(batch)).astype(np.float32)
            padded = np.resize(visits[batch * size : (batch + 1) * size], size)
            records = padded % len(self.source)
            label = np.where(weight > 0, self.source.labels[records], 0)
            yield Rows(records, label, weight, padded)

    def images(self, batch: int) -> int:
        """Visits that batch number ``batch`` of an epoch holds; fewer than the others if last."""
        return min(self.batch_size, self._visits - batch * self.batch_size)

    @property
    def deterministic(self) -> bool:
        """Whether a record looks the same in every epoch."""
        return not self._augmentation.varies

    def in_order(self) -> Loader:
        """Returns a loader of all records as they are, which shares the decoded images."""
        plain = copy.copy(self)
        plain._shuffle, plain._drop_last, plain._augmentation = False, False, Augmentation()
        plain._visits = len(self.source)
        plain.batch_size = min(self.batch_size, plain._visits)
        return plain

    def forget_images(self) -> None:
        """Frees the memory of decoded images; one that is asked for again is decoded again."""
        self._images.clear()

    def _generator(self, epoch: int, stream: int) -> np.random.Generator:
        """Stream 0 is the order of an epoch, stream 1 + v belongs to its visit v.

        A key must have as many numbers for the one as for the other, because NumPy takes
        ``[seed, epoch]`` and ``[seed, epoch, 0]`` for the same.
        """
        return np.random.default_rng([self._seed, epoch, stream])

    def _batch(self, epoch: int, rows: Rows) -> Batch:
        real = rows.visits[rows.weight > 0]
        made = zip(*(self._visit(epoch, int(visit)) for visit in real), strict=True)
        parts = [_padded(part, self.batch_size) for part in made]
        image, mask, label, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Batch(transforms.normalize(image, self._mean, self._std), mask, label, weight)

    def _visit(self, epoch: int, visit: int) -> tuple[Row, ...]:
        count = len(self.source)
        index, rng = visit % count, self._generator(epoch, 1 + visit)
        label = int(self.source.labels[index])
        return self._augmentation.rows(self._images, index, label, count, rng)


def _padded(rows: Sequence[Row], size: int) -> tuple[np.ndarray, ...]:
    """Image, mask, label and weight of rows, filled up with rows that count for nothing."""
    images, masks, labels, weights = zip(*rows, strict=True)
    mask = np.zeros((size, *masks[0].shape), bool)
    label, weight = np.zeros(size, np.int32), np.zeros(size, np.float32)
    mask[: len(rows)], label[: len(rows)], weight[: len(rows)] = masks, labels, weights
    # Padding repeats real images: blank ones may overflow a flow, and 0 * inf is not 0.
    return np.resize(images, (size, *images[0].shape)), mask, label, weight


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
