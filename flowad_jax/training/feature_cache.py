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
from tqdm.auto import tqdm

from flowad_jax import memory
from flowad_jax.data.loader import Loader
from flowad_jax.features.batches import Cached, FeatureSets, Masks
from flowad_jax.features.placement import Room
from flowad_jax.features.store import DeviceStore, DiskStore, HostStore, Layout, Put, Store
from flowad_jax.training.experiment import Experiment
from flowad_jax.types import Batch
from flowad_jax.version import __version__

log = logging.getLogger("flowad_jax")

_IN_KEY = ("name", "weights", "taps", "strides")  # the key says what these come to


def prepare(experiment: Experiment, path: Path, stop: Callable[[], None]) -> FeatureSets:
    """Returns the features of a run, kept wherever the config and the room allow it.

    ``stop`` is called after every image batch; what it raises ends the computation, and nothing
    half-written stays.

    Raises:
      UserError: the place that the config demands is too small or cannot be written.
    """
    sets, cache = experiment.features, experiment.config.cache
    if cache.place == "off":
        return sets
    folder, room = Path(cache.folder or path / "features").absolute(), Room(cache)

    def keep(name: str, loader: Loader) -> Cached | None:
        """None if images change from epoch to epoch, or if there is no room."""
        if not loader.deterministic:
            return None
        return _Images(experiment, loader, name, stop).keep(room, folder)

    train = keep("training", experiment.train_loader)
    if train:
        calibration = train.of(experiment.calibration_loader, experiment.calibration_rows)
        sets = sets._replace(train=train, calibration=calibration)
    elif experiment.config.eval.scoring == "calibrated":
        kept = keep("calibration", experiment.calibration_loader)
        sets = sets._replace(calibration=kept or sets.calibration)
    if experiment.holdout_loader:
        kept = keep("held-out", experiment.holdout_loader)
        sets = sets._replace(holdout=kept or sets.holdout)
        if kept and experiment.test is experiment.holdout:
            return sets._replace(test=kept)
    return sets._replace(test=keep("test", experiment.test_loader) or sets.test)


class _Images:
    """All images of a loader as they are, on their way through the encoder into a store."""

    def __init__(self, experiment: Experiment, loader: Loader, name: str, stop: Callable[[], None]):
        self._experiment, self._loader, self._name, self._stop = experiment, loader, name, stop
        count, dtype = len(loader.source), experiment.config.cache.dtype
        shapes = tuple(shape.shape[1:] for shape in jax.tree.leaves(experiment.batch_shapes))
        self._layout = Layout(count, shapes, jax.numpy.dtype(dtype))
        size = memory.text(self._layout.bytes)
        self._title = f"features of {count} {name} images ({size} of {dtype})"
        self._masks = Masks(loader.canvas.shape)
        self._encoded = False  # whether the encoder ran

    def keep(self, room: Room, folder: Path) -> Cached | None:
        """Computes the features, or finds them on disk; None if there is no room."""
        started = time.perf_counter()
        place = room.choose(self._layout.bytes, self._title)
        store: Store | None
        if place == "disk":
            key, layout = self._key(), self._layout
            store = DiskStore.find(folder, key, layout)
            if store is None and room.fits_on_disk(layout.bytes, folder, self._title):
                store = DiskStore.write(folder, key, layout, self._encode)
            if store is None:
                log.warning("%s: no room, so they are computed in every epoch", self._title)
                return None
        else:
            store = in_memory = (DeviceStore if place == "device" else HostStore)(self._layout)
            self._encode(in_memory.put)
        self._loader.forget_images()
        seconds = time.perf_counter() - started
        log.info(
            "%s: %s in %.1f s, kept %s",
            self._title,
            "computed" if self._encoded else "found",
            seconds,
            f"in {folder}" if place == "disk" else f"in memory of the {place}",
        )
        image, devices = self._experiment.method.needs_image, self._experiment.devices
        return Cached(store, self._masks, self._loader, None, image, seconds, devices)

    def _encode(self, put: Put) -> None:
        """Hands the feature maps of all images to ``put``, in order."""
        self._encoded = True
        encode, variables = self._experiment.encode, self._experiment.encoder.variables
        for first, count, batch in self._batches("encode"):
            seen = jax.tree.leaves(encode(variables, batch.image))
            put(first, count, tuple(x.astype(self._layout.dtype) for x in seen))

    def _key(self) -> dict[str, Any]:
        """All that the feature maps depend on, the pixels as the encoder gets them included."""
        config, encoder = self._experiment.config, self._experiment.encoder
        pixels = hashlib.sha256()
        for _, count, batch in self._batches("check"):
            pixels.update(np.ascontiguousarray(batch.image[:count]).data)
        return {
            "encoder": {
                "name": encoder.source["name"],
                "sha256": encoder.source["sha256"],
                "taps": list(encoder.taps),
                "options": {k: v for k, v in config.encoder.items() if k not in _IN_KEY},
            },
            "images": {
                "sha256": pixels.hexdigest(),
                "count": self._layout.rows,
                "size": self._loader.canvas.size,
                "filter": config.data.filter,
                "norm": config.data.norm,
            },
            "maps": {
                "shapes": [list(shape) for shape in self._layout.shapes],
                "dtype": self._layout.dtype.name,
            },
            "computed_by": {
                "flowad_jax": __version__,
                "jax": jax.__version__,
                "backend": jax.default_backend(),
            },
        }

    def _batches(self, verb: str) -> Iterator[tuple[int, int, Batch]]:
        """Yields every batch with its first row and its number of images."""
        first, title = 0, f"{verb} {self._name} images"
        bar = tqdm(total=self._layout.rows, desc=title, unit="img", disable=None, leave=False)
        with bar, closing(self._loader.in_order().epoch(0)) as batches:
            for batch in batches:
                count = int(batch.weight.sum())
                self._masks.put(first, batch.mask[:count])
                yield first, count, batch
                first += count
                bar.update(count)
                self._stop()
