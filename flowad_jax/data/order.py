"""Which records make up which batch: it depends on the seed and the epoch, and on nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
    """The records of one batch, without their pixels.

    Attributes:
      records: (B,) int64, indices into the source; rows that pad repeat the real ones.
      label, weight: (B,) int32 and float32, 0 for padding.
      visits: (B,) int64, numbers of the visits within an epoch, which differ where records do not.
    """

    records: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    visits: np.ndarray


@dataclass(frozen=True)
class Order:
    """The order of visits in every epoch, cut into batches.

    Attributes:
      labels: (N,) int32, of the records.
      batch_size: visits per batch; may exceed those of an epoch.
      repeat: visits of every record in an epoch.
      seed: of the shuffling.
      shuffle: draw a new order for each epoch.
      drop_last: leave out the last batch if it is not full; else rows of weight 0 fill it up.
    """

    labels: np.ndarray
    batch_size: int
    repeat: int = 1
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = False

    @property
    def visits(self) -> int:
        """Visits per epoch."""
        return len(self.labels) * self.repeat

    def __len__(self) -> int:
        whole, rest = divmod(self.visits, self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def images(self, batch: int) -> int:
        """Visits that batch number ``batch`` of an epoch holds; fewer than the others if last."""
        return min(self.batch_size, self.visits - batch * self.batch_size)

    def rows(self, epoch: int, start: int = 0) -> Iterator[Rows]:
        """Yields the rows of every batch of an epoch, the first ``start`` of them left out."""
        visits = np.arange(self.visits)
        if self.shuffle:
            draws = generator(self.seed, epoch, 0).random(self.visits)
            visits = np.argsort(draws, kind="stable")
        size = self.batch_size
        for batch in range(start, len(self)):
            weight = (np.arange(size) < self.images(batch)).astype(np.float32)
            padded = np.resize(visits[batch * size : (batch + 1) * size], size)
            records = padded % len(self.labels)
            label = np.where(weight > 0, self.labels[records], 0)
            yield Rows(records, label, weight, padded)


def generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """Stream 0 is the order of an epoch, stream 1 + v belongs to its visit v.

    A key must have as many numbers for the one as for the other, because NumPy takes
    ``[seed, epoch]`` and ``[seed, epoch, 0]`` for the same.
    """
    return np.random.default_rng([seed, epoch, stream])
