"""Batches of normalised images in a reproducible order, prepared ahead of time.

Which batch comes when, and what is in it, depends only on the seed, the epoch and the record: not
on threads, processes or hosts. So the whole state of an iteration is where it stands, an epoch and
a batch; ``epoch(epoch, batch)`` goes on with the very next one.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from flowad_jax.canvas import Canvas, CanvasLike
from flowad_jax.data import transforms
from flowad_jax.data.augment import Augmentation
from flowad_jax.data.order import Order, Rows, generator
from flowad_jax.data.prefetch import Arrays, Processes, map_in_threads
from flowad_jax.data.record import Source
from flowad_jax.data.resized import ResizedImages, image_shape
from flowad_jax.errors import UserError
from flowad_jax.types import Batch

_log = logging.getLogger(__name__)


class Loader:
    """An endless supply of epochs over one ``Source``.

    Attributes:
      source: the records; its ``labels``, ``kinds`` and ``paths`` are in the order of an epoch
        that is not shuffled.
      canvas: what images and masks are brought to.
      batch_size: images per batch, of all hosts; synthetic versions beside them are not counted.
      part: the rows of a batch that this host makes.
    """

    def __init__(
        self,
        source: Source,
        image_size: CanvasLike,
        batch_size: int,
        mean: transforms.Triple,
        std: transforms.Triple,
        seed: int = 0,
        *,
        augmentation: Augmentation | None = None,
        repeat: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        filter: str = "lanczos",
        cache_bytes: int = 2**30,
        workers: int = 2,
        processes: int = 0,
        shard: tuple[int, int] = (0, 1),
        multiple: int = 1,
    ) -> None:
        """Checks the settings; nothing is decoded before the first batch is asked for.

        Args:
          source: the records.
          image_size: (H, W) of the images and masks of a batch, or their canvas; one number for
            a square.
          batch_size: visits per batch; a shuffled epoch with fewer is one smaller batch.
          mean: subtracted from pixels in [0, 1].
          std: divides what is left.
          seed: source of all randomness, not negative.
          augmentation: what is changed at every visit, if not nothing. With pairs of synthetic
            anomalies a batch has twice ``batch_size`` rows.
          repeat: visits of every record in an epoch, each with random numbers of its own.
          shuffle: draw a new order for each epoch. Off for evaluation, where rows of weight 0 fill
            up every batch: of one size, all images are scored by one program.
          drop_last: leave out the last batch if it is not full, as the CFLOW-AD reference does.
          filter: Pillow's filter for resizing images.
          cache_bytes: memory for resized images, which then need no decoding in later epochs.
          workers: threads; 0 works in the caller's thread.
          processes: worker processes instead of the threads, if not 0. They stay until `close`,
            and each has its share of ``cache_bytes``.
          shard: number of this host among so many; of every batch it makes its equal part.
          multiple: batches are filled up to a multiple of so many rows, of weight 0.

        Raises:
          UserError: a value is out of range, or ``drop_last`` leaves no batch.
        """
        if len(source) == 0:
            raise UserError("the data set has no images: check data.root and data.category")
        canvas = Canvas.of(image_size)
        for lowest, values in (
            (1, {"image_size": min(canvas.shape), "batch_size": batch_size, "repeat": repeat}),
            (0, {"seed": seed, "workers": workers, "processes": processes}),
        ):
            for name, value in values.items():
                if value < lowest:
                    raise UserError(f"data.{name}={value} is too small: use {lowest} or more")
        transforms.resampling(filter)
        visits = len(source) * repeat
        if (shuffle or drop_last) and batch_size > visits:
            times = f", each visited {repeat} times" if repeat > 1 else ""
            sizes = f"batch_size {batch_size} is larger than the set of {len(source)} images{times}"
            if drop_last:
                raise UserError(f"{sizes} and drop_last leaves no batch: lower it or turn it off")
            _log.warning("%s: using %d", sizes, visits)
            batch_size = visits
        self.source, self.canvas = source, canvas
        self.batch_size = size = -(-batch_size // multiple) * multiple
        host, hosts = shard
        if size % hosts:
            raise UserError(
                f"a batch of {size} images cannot be divided among {hosts} hosts equally"
            )
        self.part = slice(host * size // hosts, (host + 1) * size // hosts)
        self._order = Order(source.labels, size, repeat, seed, shuffle, drop_last)
        self._augmentation = augmentation or Augmentation()
        self._images = ResizedImages(source, canvas, filter, cache_bytes // max(1, processes))
        self._mean, self._std = mean, std
        self._workers, self._processes = workers, processes
        self._stream: Processes | None = None

    def __len__(self) -> int:
        return len(self._order)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of one epoch, the first ``start`` of them left out.

        Closing the generator stops threads; processes go on with what comes next. Raises a
        `UserError` that names the file if a record cannot be read.
        """
        if not self._processes:
            plan = ((epoch, rows) for rows in self.rows(epoch, start))
            batches = map_in_threads(
                lambda item: self._normalized(self._arrays(*item)), plan, self._workers
            )
            yield from batches
            return
        position = epoch * len(self) + start
        if self._stream is None or self._stream.position != position:
            self.close()
            self._stream = Processes(self._arrays_at, position, self._processes)
        stream = self._stream
        for _ in range(start, len(self)):  # bytes pass between processes, not floats
            yield self._normalized(next(stream))

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

    @functools.cached_property
    def padded_shapes(self) -> list[tuple[int, ...]] | None:
        """(H, W) of all images before they were padded, in order; None if they are not padded."""
        if self.canvas.fit != "pad":
            return None
        return [image_shape(self.source, index) for index in range(len(self.source))]

    def in_order(self) -> Loader:
        """Returns a loader of all records as they are, which shares the decoded images."""
        plain = copy.copy(self)
        plain._order = Order(self.source.labels, self.batch_size, shuffle=False)
        plain._augmentation = Augmentation()
        plain.part, plain._processes, plain._stream = slice(self.batch_size), 0, None
        return plain

    def forget_images(self) -> None:
        """Frees the memory of decoded images; one that is asked for again is decoded again."""
        self._images.clear()

    def __getstate__(self) -> dict[str, Any]:
        """What worker processes get a copy of."""
        return self.__dict__ | {"_stream": None}

    def _arrays_at(self, position: int) -> Arrays:
        """The arrays of a batch, counted from the beginning of the first epoch."""
        epoch, batch = divmod(position, len(self))
        return self._arrays(epoch, next(self.rows(epoch, batch)))

    def _normalized(self, arrays: Arrays) -> Batch:
        image, *others = arrays
        return Batch((), transforms.normalize(image, self._mean, self._std), *others)

    def _arrays(self, epoch: int, rows: Rows) -> Arrays:
        """Image in bytes, mask, label and weight of this host's part of a batch."""
        visits, count = rows.visits[self.part].tolist(), len(self.source)
        made = {}
        for visit in dict.fromkeys(visits):
            rng = generator(self._order.seed, epoch, 1 + visit)
            label = int(self.source.labels[visit % count])
            made[visit] = self._augmentation.rows(self._images, visit % count, label, count, rng)
        # All images as they are first, then what synthesis made of each.
        parts = list(zip(*(made[visit] for visit in visits), strict=True))
        columns = zip(*(row for part in parts for row in part), strict=True)
        images, masks, labels, weights = (np.stack(column) for column in columns)
        # Padding repeats real images: blank ones may overflow a flow, and 0 * inf is not 0.
        real = np.tile(rows.weight[self.part] > 0, len(parts))
        labels, weights = (np.where(real, x, 0) for x in (labels, weights))
        masks &= real[:, None, None]
        return images, masks, labels.astype(np.int32), weights.astype(np.float32)
