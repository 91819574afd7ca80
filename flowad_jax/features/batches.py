"""The encoder's feature maps batch by batch: computed from images, or taken from a store.

Both kinds hand out the same maps in the same order, so that what learns or scores cannot tell
which one it was given.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from flowad_jax.data.pipeline import Loader
from flowad_jax.features.store import Maps, Store
from flowad_jax.parallel import ALONE, Devices
from flowad_jax.types import Batch, Encoder, Tree

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

Encode = Callable[[Tree, Any], Maps]  # (variables, image)


class Features(Protocol):
    """A supply of feature maps with what is known about the images behind them.

    Attributes:
      seconds: what it took to compute or read them before the first epoch.
      waited: seconds for which images were not ready when the last epoch asked for them.
    """

    seconds: float
    waited: float

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Generator[tuple[Maps, Batch], None, None]:
        """Yields maps and batches (without images), the first ``start`` of them left out."""


class FeatureSets(NamedTuple):
    """The sets of a run.

    Attributes:
      train: the training images, augmented.
      calibration: some of them as they are.
      holdout: normal images that are not trained on; None if there are none.
      test: the test images.
    """

    train: Features
    calibration: Features
    holdout: Features | None
    test: Features


def make_encode(encoder: Encoder, dtype: str, with_image: bool = False) -> Encode:
    """Returns the jitted ``(variables, image) -> maps``, rounded to one of `DTYPES`.

    Rounding does not depend on where maps are kept, nor on whether they are: the same recipe gives
    the same result on a machine with less memory.

    Args:
      encoder: the frozen network.
      dtype: of the maps.
      with_image: let the image itself follow as the last map, for methods that see it.
    """

    def encode(variables: Tree, image: jax.Array) -> Maps:
        maps = encoder.apply(variables, image) + ((image,) if with_image else ())
        return tuple(x.astype(DTYPES[dtype]) for x in maps)

    return jax.jit(encode)


def _as_is(variables: Tree, image: Any) -> Maps:
    del variables
    return (image,)


class Encoded:
    """Features computed from the images, every time."""

    seconds = 0.0

    def __init__(self, encode: Encode, variables: Tree, loader: Loader, devices: Devices = ALONE):
        """Takes what `make_encode` returns, the encoder's weights, the images and the devices."""
        self._encode, self._variables, self._loader = encode, variables, loader
        self._devices = devices
        self.waited = 0.0

    def as_images(self) -> Encoded:
        """The same before the encoder: the images (B, H, W, 3) stand where the maps would be."""
        return Encoded(_as_is, None, self._loader, self._devices)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._loader)

    def epoch(self, epoch: int, start: int = 0) -> Generator[tuple[Maps, Batch], None, None]:
        """Yields maps and batches; closing the generator stops the loader's threads.

        Images of the next batch are on their way to the device while this one is worked on.
        """
        self.waited = 0.0
        with closing(self._loader.epoch(epoch, start)) as batches:
            for batch in self._placed(self._timed(batches)):
                maps = self._encode(self._variables, batch.image)
                yield tuple(x.astype(jnp.float32) for x in maps), batch._replace(image=None)

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def _placed(self, batches: Iterator[Batch], ahead: int = 1) -> Iterator[Batch]:
        """Yields batches that are on the devices, with ``ahead`` more on their way there."""
        waiting: deque[Batch] = deque()
        for batch in batches:
            batch = self._devices.split(batch, self._loader.batch_size)
            waiting.append(batch._replace(image=self._devices.send(batch.image)))
            if len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting


class Cached:
    """Features computed once, in the order of the loader's epochs."""

    def __init__(
        self,
        store: Store,
        masks: Masks,
        loader: Loader,
        rows: np.ndarray | None = None,
        seconds: float = 0.0,
        devices: Devices = ALONE,
    ):
        """Hands out what a store holds.

        Args:
          store: the maps.
          masks: the masks of the same images.
          loader: gives the order; its images are not decoded.
          rows: rows of the store that the loader's records are; None if they are the same.
          seconds: what it took to fill the store.
          devices: share the batches.
        """
        self._devices = devices
        self._store, self._masks, self._loader = store, masks, loader
        self._rows = np.arange(len(loader.source)) if rows is None else rows
        self.seconds, self.waited = seconds, 0.0

    def of(self, loader: Loader, rows: np.ndarray) -> Cached:
        """Features of a loader whose records are the given rows of this one's."""
        return Cached(self._store, self._masks, loader, self._rows[rows], devices=self._devices)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._loader)

    def epoch(self, epoch: int, start: int = 0) -> Generator[tuple[Maps, Batch], None, None]:
        """Yields maps and batches."""
        for rows in self._loader.rows(epoch, start):
            records, label, weight, _ = (x[self._loader.part] for x in rows)
            index = self._rows[records]
            mask = self._masks.take(index, weight > 0)
            made = self._store.take(index), Batch(None, mask, label, weight)
            yield self._devices.split(made, self._loader.batch_size)


class Masks:
    """Masks of a set of images, of which most are empty: the others alone take memory."""

    def __init__(self, image_size: int):
        """Starts with empty masks of (image_size, image_size) pixels."""
        self._shape = (image_size, image_size)
        self._bits: dict[int, np.ndarray] = {}

    def put(self, first: int, masks: np.ndarray) -> None:
        """Keeps masks (n, H, W) as those of the images from ``first`` on."""
        for index, mask in enumerate(masks, start=first):
            if mask.any():
                self._bits[index] = np.packbits(mask)

    def take(self, index: np.ndarray, real: np.ndarray) -> np.ndarray:
        """Returns masks (B, H, W) bool of the images ``index``, empty where not ``real``."""
        out = np.zeros((len(index), *self._shape), bool)
        for row, image in enumerate(index):
            if real[row] and int(image) in self._bits:
                bits = np.unpackbits(self._bits[int(image)], count=out[row].size)
                out[row] = bits.reshape(self._shape)
        return out
