"""Batches of normalised images in a reproducible order, prepared ahead of time.

Which batch comes when, and what is in it, depends only on the seed, the epoch and the record: not
on threads, processes or hosts. So the whole state of an iteration is where it stands, an epoch and
a batch; ``epoch(epoch, batch)`` goes on with the very next one.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from flowad_jax.data import transforms
from flowad_jax.data._resized import ResizedImages
from flowad_jax.data.augment import Augmentation, Row, Synthesis
from flowad_jax.data.order import Order, Rows, generator
from flowad_jax.data.record import Source
from flowad_jax.data.workers import Processes, threaded
from flowad_jax.errors import UserError
from flowad_jax.types import Batch

_log = logging.getLogger(__name__)


class Loader:
    """An endless supply of epochs over one ``Source``.

    Attributes:
      source: the records; its ``labels``, ``kinds`` and ``paths`` are in the order of an epoch
        that is not shuffled.
      image_size: side of the images and masks.
      part: the rows of a batch that this host makes.
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
        processes: int = 0,
        shard: tuple[int, int] = (0, 1),
        multiple: int = 1,
        sharpen: float = 0.0,
        share_sharpening: bool = False,
        repeat: int = 1,
        synthesis: Synthesis | None = None,
    ) -> None:
        """Checks the settings; nothing is decoded before the first batch is asked for.

        Args:
          source: the records.
          image_size: side S of the images and masks of a batch.
          batch_size: visits per batch; a shuffled epoch with fewer is one smaller batch.
          mean: subtracted from pixels in [0, 1].
          std: divides what is left.
          seed: source of all randomness, not negative.
          rotation_degrees: bound of the uniform random rotation; 0 turns it off.
          shuffle: draw a new order for each epoch. Off for evaluation, where rows of weight 0 fill
            up every batch: of one size, all images are scored by one program.
          drop_last: leave out the last batch if it is not full, as the CFLOW-AD reference does.
            Otherwise its missing rows are filled up and have weight 0.
          filter: Pillow's filter for resizing images.
          cache_bytes: memory for resized images, which then need no decoding in later epochs.
          workers: threads; 0 works in the caller's thread.
          processes: worker processes instead of the threads, if not 0. They stay until `close`,
            and each has its share of ``cache_bytes``.
          shard: number of this host among so many; of every batch it makes its equal part.
          multiple: batches are filled up to a multiple of so many rows, of weight 0.
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
        _at_least(0, seed=seed, workers=workers, processes=processes)
        transforms.resampling(filter)
        self._augmentation = Augmentation(rotation_degrees, sharpen, share_sharpening, synthesis)
        self._augmentation.check()
        visits = len(source) * repeat
        if (shuffle or drop_last) and batch_size > visits:
            times = f", each visited {repeat} times" if repeat > 1 else ""
            sizes = f"batch_size {batch_size} is larger than the set of {len(source)} images{times}"
            if drop_last:
                raise UserError(f"{sizes} and drop_last leaves no batch: lower it or turn it off")
            _log.warning("%s: using %d", sizes, visits)
            batch_size = visits
        size = -(-batch_size // multiple) * multiple
        self._order = Order(source.labels, size, repeat, seed, shuffle, drop_last)
        self.part = _part(size, *shard)
        self.source = source
        self.image_size = image_size
        self._mean, self._std = mean, std
        self._workers, self._processes = workers, processes
        self._stream: Processes | None = None
        self._images = ResizedImages(source, image_size, filter, cache_bytes // max(1, processes))

    @property
    def batch_size(self) -> int:
        """Images per batch, of all hosts; synthetic versions beside them are not counted."""
        return self._order.batch_size

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._order)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of one epoch, the first ``start`` of them left out.

        Closing the generator stops threads; processes go on with what comes next.

        Raises:
          UserError: a record cannot be read; the message names its file.
        """
        if self._processes:
            stream = self._stream_at(epoch * len(self) + start)
            for _ in range(start, len(self)):  # bytes pass between processes, not floats
                yield self._normalised(next(stream))
            return
        plan = ((epoch, rows) for rows in self.rows(epoch, start))
        yield from threaded(self._batch, plan, self._workers)

    def close(self) -> None:
        """Ends worker processes, if there are any; the next epoch starts new ones."""
        if self._stream:
            self._stream.close()
        self._stream = None

    def rows(self, epoch: int, start: int = 0) -> Iterator[Rows]:
        """Yields which records make up the batches of `epoch`, synthesis aside; decodes nothing."""
        return self._order.rows(epoch, start)

    def images(self, batch: int) -> int:
        """Visits that batch number ``batch`` of an epoch holds; fewer than the others if last."""
        return self._order.images(batch)

    @property
    def deterministic(self) -> bool:
        """Whether a record looks the same in every epoch."""
        return not self._augmentation.varies

    def in_order(self) -> Loader:
        """Returns a loader of all records as they are, which shares the decoded images."""
        plain = copy.copy(self)
        size = self.batch_size
        plain._order = Order(self.source.labels, size, shuffle=False)
        plain._augmentation = Augmentation()
        plain.part, plain._processes, plain._stream = _part(size, 0, 1), 0, None
        return plain

    def forget_images(self) -> None:
        """Frees the memory of decoded images; one that is asked for again is decoded again."""
        self._images.clear()

    def __getstate__(self) -> dict[str, Any]:
        """What worker processes get a copy of."""
        return self.__dict__ | {"_stream": None}

    def _stream_at(self, position: int) -> Processes:
        if self._stream is None or self._stream.position != position:
            self.close()
            self._stream = Processes(self._at, position, self._processes)
        return self._stream

    def _at(self, position: int) -> tuple[np.ndarray, ...]:
        """The arrays of a batch, counted from the beginning of the first epoch."""
        epoch, batch = divmod(position, len(self))
        return self._arrays(epoch, next(self.rows(epoch, batch)))

    def _batch(self, item: tuple[int, Rows]) -> Batch:
        return self._normalised(self._arrays(*item))

    def _normalised(self, arrays: tuple[np.ndarray, ...]) -> Batch:
        image, *others = arrays
        return Batch(transforms.normalize(image, self._mean, self._std), *others)

    def _arrays(self, epoch: int, rows: Rows) -> tuple[np.ndarray, ...]:
        """Image in bytes, mask, label and weight of this host's part of a batch."""
        visits, real = rows.visits[self.part], rows.weight[self.part] > 0
        # Padding repeats real images: blank ones may overflow a flow, and 0 * inf is not 0.
        made = {visit: self._visit(epoch, visit) for visit in dict.fromkeys(visits.tolist())}
        halves = zip(*(made[visit] for visit in visits.tolist()), strict=True)
        columns = zip(*(_columns(half, real) for half in halves), strict=True)
        return tuple(np.concatenate(column) for column in columns)

    def _visit(self, epoch: int, visit: int) -> tuple[Row, ...]:
        count = len(self.source)
        index, rng = visit % count, generator(self._order.seed, epoch, 1 + visit)
        label = int(self.source.labels[index])
        return self._augmentation.rows(self._images, index, label, count, rng)


def _columns(rows: tuple[Row, ...], real: np.ndarray) -> tuple[np.ndarray, ...]:
    """Image, mask, label and weight of rows, of which some are not real and count for nothing."""
    images, masks, labels, weights = zip(*rows, strict=True)
    mask = np.stack(masks) & real[:, None, None]
    label = np.where(real, labels, 0).astype(np.int32)
    return np.stack(images), mask, label, np.where(real, weights, 0).astype(np.float32)


def _part(size: int, host: int, hosts: int) -> slice:
    """The rows of a batch that a host makes."""
    if size % hosts:
        raise UserError(f"a batch of {size} images cannot be divided among {hosts} hosts equally")
    return slice(host * size // hosts, (host + 1) * size // hosts)


def _at_least(lowest: int, **values: float) -> None:
    for name, value in values.items():
        if not value >= lowest:
            raise UserError(f"data.{name}={value} is too small: use {lowest} or more")
