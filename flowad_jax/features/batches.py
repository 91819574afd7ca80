"""Batches with the encoder's feature maps: computed from images, or taken from a store.

Both kinds yield the same batches in the same order, so that what learns or scores cannot tell
which one it was given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from flowad_jax.data.loader import Loader
from flowad_jax.data.prefetch import prefetch
from flowad_jax.features.store import Store
from flowad_jax.parallel import ALONE, Devices
from flowad_jax.types import Batch, Encoder, Tree

DTYPES = ("float32", "bfloat16")  # that maps are rounded to

Encode = Callable[[Tree, Any], Batch]  # (variables, image)


class Features(Protocol):
    """A supply of batches with feature maps.

    Attributes:
      loader: of the images.
      seconds: what it took to compute or read them before the first epoch.
      waited: seconds for which images were not ready when the last epoch asked for them.
    """

    loader: Loader
    seconds: float
    waited: float

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yields batches, the first ``start`` of them left out."""


class FeatureSets(NamedTuple):
    """The sets of a run; ``holdout`` is of the normal images that are not trained on, or None."""

    train: Features
    calibration: Features
    holdout: Features | None
    test: Features


def make_encode(encoder: Encoder, dtype: str, needs_image: bool = False) -> Encode:
    """Returns the jitted ``(variables, image) -> Batch``: feature maps, and the image if needed.

    Both are float32, rounded to one of `DTYPES`. Rounding does not depend on where maps are kept,
    nor on whether they are: the same recipe gives the same result on a machine with less memory.
    """
    kept = jnp.finfo(jnp.dtype(dtype))

    def encode(variables: Tree, image: jax.Array) -> Batch:
        seen = Batch(encoder.apply(variables, image), image if needs_image else None)
        return jax.tree.map(lambda x: jax.lax.reduce_precision(x, kept.nexp, kept.nmant), seen)

    return jax.jit(encode)


class Encoded:
    """Features computed from the images, every time."""

    seconds = 0.0

    def __init__(
        self, encode: Encode | None, variables: Tree, loader: Loader, devices: Devices = ALONE
    ):
        """Takes what `make_encode` returns, the encoder's weights, the images and the devices.

        Without ``encode`` batches have images only: whoever stacks them encodes them together.
        """
        self._encode, self._variables, self.loader = encode, variables, loader
        self._devices = devices
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yields batches; closing the generator stops the loader's threads.

        Images of the next batch are on their way to the device while this one is worked on.
        """
        self.waited = 0.0
        with closing(self.loader.epoch(epoch, start)) as batches:
            for batch in prefetch(map(self._send, self._measure_waiting(batches)), 1):
                if self._encode:
                    seen = self._encode(self._variables, batch.image)
                    batch = batch._replace(maps=seen.maps, image=seen.image)
                yield batch

    def _send(self, batch: Batch) -> Batch:
        batch = self._devices.shard_batch(batch, self.loader.batch_size)
        return batch._replace(image=self._devices.send(batch.image))

    def _measure_waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        started = time.perf_counter()
        for batch in batches:
            self.waited += time.perf_counter() - started
            yield batch
            started = time.perf_counter()


@dataclass
class Cached:
    """Features computed once, in the order of the loader's epochs.

    Attributes:
      store: the maps, and behind them the images, if ``has_image``.
      masks: the masks of the same images.
      loader: gives the order; its images are not decoded.
      rows: rows of the store that the loader's records are; None if they are the same.
      has_image: see `Method.needs_image`.
      seconds: what it took to fill the store.
      devices: share the batches.
    """

    store: Store
    masks: Masks
    loader: Loader
    rows: np.ndarray | None = None
    has_image: bool = False
    seconds: float = 0.0
    devices: Devices = ALONE
    waited = 0.0

    def of(self, loader: Loader, rows: np.ndarray) -> Cached:
        """Features of a loader whose records are the given rows of this one's."""
        rows = rows if self.rows is None else self.rows[rows]
        return replace(self, loader=loader, rows=rows, seconds=0.0)

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yields batches."""
        for order in self.loader.rows(epoch, start):
            records, label, weight, _ = (x[self.loader.part] for x in order)
            index = records if self.rows is None else self.rows[records]
            mask = self.masks.take(index, weight > 0)
            maps, image = self.store.take(index), None
            if self.has_image:
                maps, image = maps[:-1], maps[-1]
            batch = Batch(maps, image, mask, label, weight)
            yield self.devices.shard_batch(batch, self.loader.batch_size)


class Masks:
    """Masks of a set of images, of which most are empty: the others alone take memory."""

    def __init__(self, shape: tuple[int, int]):
        self._shape = shape
        self._bits: dict[int, np.ndarray] = {}

    def put(self, first: int, masks: np.ndarray) -> None:
        """Keeps masks (n, H, W) as those of the images from ``first`` on."""
        for index, mask in enumerate(masks, start=first):
            if mask.any():
                self._bits[index] = np.packbits(mask)

    def take(self, index: np.ndarray, real: np.ndarray) -> np.ndarray:
        """Returns masks (B, H, W) bool of the images ``index``, empty where not ``real``."""
        out = np.zeros((len(index), *self._shape), bool)
        for row, image in enumerate(index.tolist()):
            if real[row] and image in self._bits:
                bits = np.unpackbits(self._bits[image], count=out[row].size)
                out[row] = bits.reshape(self._shape)
        return out
