"""Computes the features of images that never change once, and keeps them where there is room."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import flowad_jax
from flowad_jax.data.pipeline import Loader
from flowad_jax.features import memory
from flowad_jax.features.batches import DTYPES, Cached, FeatureSets, Masks
from flowad_jax.features.placement import Room
from flowad_jax.features.store import DeviceStore, DiskStore, HostStore, Layout, Put, Store
from flowad_jax.training.system import System
from flowad_jax.types import Batch

log = logging.getLogger("flowad_jax")

_IN_KEY = ("name", "weights", "taps", "strides")  # the key says what these come to


def prepare(system: System, path: Path, stop: Callable[[], None]) -> FeatureSets:
    """Returns the features of a run, kept wherever the config and the room allow it.

    Args:
      system: the run.
      path: its workdir.
      stop: called after every image batch; what it raises ends the computation, and nothing
        half-written stays.

    Raises:
      UserError: the place that the config demands is too small or cannot be written.
    """
    sets = system.features
    if system.config.cache.place == "off":
        return sets
    cache = _Cache(system, path, stop)
    train = cache.keep("training", system.train_loader)
    if train:
        calibration = train.of(system.calibration_loader, system.calibration_rows)
        sets = sets._replace(train=train, calibration=calibration)
    elif system.config.eval.scoring == "calibrated":
        kept = cache.keep("calibration", system.calibration_loader)
        sets = sets._replace(calibration=kept or sets.calibration)
    if system.holdout_loader:
        kept = cache.keep("held-out", system.holdout_loader)
        sets = sets._replace(holdout=kept or sets.holdout)
    return sets._replace(test=cache.keep("test", system.test_loader) or sets.test)


class _Cache:
    """One call of `prepare`: the room there is, and what is taken from it."""

    def __init__(self, system: System, path: Path, stop: Callable[[], None]):
        self._system, self._stop = system, stop
        self._folder = Path(system.config.cache.folder or path / "features").absolute()
        self._room = Room(system.config.cache)

    def keep(self, name: str, loader: Loader) -> Cached | None:
        """Computes the features of a set, or finds them on disk.

        Returns:
          None if images change from epoch to epoch, or if there is no room.
        """
        if not loader.deterministic:
            return None
        started = time.perf_counter()
        images = _Images(self._system, loader, name, self._stop)
        place = self._room.choose(images.layout.bytes, images.title)
        store: Store | None
        if place == "disk":
            store = self._on_disk(images)
            if store is None:
                log.warning("%s: no room, so they are computed in every epoch", images.title)
                return None
        else:
            store = in_memory = (DeviceStore if place == "device" else HostStore)(images.layout)
            images.encode(in_memory.put)
        loader.forget_images()
        seconds = time.perf_counter() - started
        log.info(
            "%s: %s in %.1f s, kept %s",
            images.title,
            "computed" if images.encoded else "found",
            seconds,
            f"in {self._folder}" if place == "disk" else f"in memory of the {place}",
        )
        devices = self._system.devices
        return Cached(store, images.masks, loader, seconds=seconds, devices=devices)

    def _on_disk(self, images: _Images) -> DiskStore | None:
        """Maps of an earlier run, or new ones; None if there is no room."""
        key, layout = images.key(), images.layout
        found = DiskStore.find(self._folder, key, layout)
        if found or not self._room.fits_on_disk(layout.bytes, self._folder, images.title):
            return found
        return DiskStore.write(self._folder, key, layout, images.encode)


class _Images:
    """All images of a loader as they are, on their way through the encoder.

    Attributes:
      layout: what their features take.
      title: for messages.
      masks: of the images that were decoded so far.
      encoded: whether the encoder ran.
    """

    def __init__(self, system: System, loader: Loader, name: str, stop: Callable[[], None]):
        self._system, self._loader, self._stop = system, loader.in_order(), stop
        count, dtype = len(loader.source), system.config.cache.dtype
        shapes = tuple(shape.shape[1:] for shape in system.feature_shapes)
        self.layout = Layout(count, shapes, np.dtype(DTYPES[dtype]))
        self.title = f"features of {count} {name} images"
        self.title += f" ({memory.text(self.layout.bytes)} of {dtype})"
        self.masks = Masks(loader.image_size)
        self.encoded = False
        self._name = name

    def encode(self, put: Put) -> None:
        """Hands the feature maps of all images to ``put``, in order."""
        self.encoded = True
        encode, variables = self._system.encode, self._system.encoder.variables
        for first, count, batch in self._batches("encode"):
            put(first, count, encode(variables, batch.image))

    def key(self) -> dict[str, Any]:
        """All that the feature maps depend on."""
        config, encoder = self._system.config, self._system.encoder
        return {
            "encoder": {
                "name": encoder.source["name"],
                "sha256": encoder.source["sha256"],
                "taps": list(encoder.taps),
                "options": {k: v for k, v in config.encoder.items() if k not in _IN_KEY},
            },
            "images": {
                "sha256": self._fingerprint(),
                "count": self.layout.rows,
                "size": self._loader.image_size,
                "filter": config.data.filter,
                "norm": config.data.norm,
            },
            "maps": {
                "shapes": [list(shape) for shape in self.layout.shapes],
                "dtype": self.layout.dtype.name,
            },
            "computed_by": {
                "flowad_jax": flowad_jax.__version__,
                "jax": jax.__version__,
                "backend": jax.default_backend(),
            },
        }

    def _fingerprint(self) -> str:
        """Checksum of all pixels as the encoder gets them, in order."""
        digest = hashlib.sha256()
        for _, count, batch in self._batches("check"):
            digest.update(np.ascontiguousarray(batch.image[:count]).data)
        return digest.hexdigest()

    def _batches(self, verb: str) -> Iterator[tuple[int, int, Batch]]:
        """Yields every batch with its first row and its number of images."""
        first, total = 0, self.layout.rows
        bar = tqdm(
            total=total, desc=f"{verb} {self._name} images", unit="img", disable=None, leave=False
        )
        with bar, closing(self._loader.epoch(0)) as batches:
            for batch in batches:
                count = int(batch.weight.sum())
                self.masks.put(first, batch.mask[:count])
                yield first, count, batch
                first += count
                bar.update(count)
                self._stop()
