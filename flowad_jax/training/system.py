"""From a config to all parts of a run: the model, and its images to learn from and to test on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from ml_collections import config_dict

from flowad_jax import parallel
from flowad_jax.data.findings import findings
from flowad_jax.data.images import WHITE, depth_advice
from flowad_jax.data.pipeline import Loader
from flowad_jax.data.record import Source
from flowad_jax.data.subset import NamesOnly, evenly_spaced
from flowad_jax.evaluation import native
from flowad_jax.features import placement
from flowad_jax.features.batches import Encoded, FeatureSets
from flowad_jax.parallel import Devices
from flowad_jax.training import anomalies, splits
from flowad_jax.training.model import Model, build_model, call
from flowad_jax.training.splits import Split
from flowad_jax.types import Tree

log = logging.getLogger("flowad_jax")

EXPORTS: tuple[str, ...] = ()  # this `build` is no schedule


@dataclass(frozen=True)
class System(Model):
    """Everything that a config describes, ready to train or to evaluate.

    Attributes:
      train, holdout, test: the image sources.
      train_loader: shuffled and augmented batches.
      test_loader: batches of the test images in order.
      calibration_loader: batches of some training images, as they are.
      calibration_rows: indices of these images among the training images.
      holdout_loader: batches of the normal images that are not trained on, or None.
      devices: share the batches.
    """

    train: Source
    holdout: Source
    test: Source
    train_loader: Loader
    test_loader: Loader
    calibration_loader: Loader
    calibration_rows: np.ndarray
    holdout_loader: Loader | None
    devices: Devices

    @cached_property
    def native_masks(self) -> list[np.ndarray]:
        """Masks of the test images at their own sizes."""
        return native.read_masks(self.test)

    @cached_property
    def findings(self) -> list[str]:
        """What is remarkable about the files of all sources that are at hand, one line each."""
        everything = (self.train, self.holdout, self.test)
        at_hand = [source for source in everything if not isinstance(source, NamesOnly)]
        paths = [path for source in at_hand for path in source.paths]
        lines = [advice] if (advice := depth_advice(paths, _white(self.config))) else []
        for source in at_hand:
            lines += findings(source, self.image_size)
        return list(dict.fromkeys(lines))

    @property
    def images_per_epoch(self) -> int:
        """Visits to training images in one epoch of training, also where nothing is trained."""
        visits = len(self.train) * self.config.data.repeat
        left_out = visits % min(self.config.train.batch_size, visits)
        return visits - left_out * self.config.data.drop_last

    @property
    def features(self) -> FeatureSets:
        """Feature maps of all sets, computed from the images every time."""
        return FeatureSets(
            train=self._encoded(self.train_loader),
            calibration=self._encoded(self.calibration_loader),
            holdout=self._encoded(self.holdout_loader) if self.holdout_loader else None,
            test=self._encoded(self.test_loader),
        )

    def _encoded(self, loader: Loader) -> Encoded:
        return Encoded(self.encode, self._variables, loader, self.devices)

    @cached_property
    def _variables(self) -> Tree:
        """The encoder's weights on all devices."""
        return self.devices.everywhere(self.encoder.variables)

    @property
    def schedule(self) -> Callable:
        """Learning rate by image batch."""
        train = self.config.train
        return call(
            "train.schedule",
            "flowad_jax.training",
            train.schedule,
            learning_rate=train.learning_rate,
            epochs=train.epochs,
            steps_per_epoch=len(self.train_loader),
        )


def build(
    config: config_dict.ConfigDict,
    model: Model | None = None,
    devices: Devices | None = None,
    split: Split | None = None,
    *,
    for_training: bool = True,
) -> System:
    """Builds all parts of a run.

    Args:
      config: the recipe.
      model: what turns images into scores, if it is there already.
      devices: share the batches; None: all that can.
      split: the normal images; None draws them.
      for_training: false where nothing will be trained: then ``train_loader`` has the training
        images as they are, and settings that only training needs are not looked at.

    Raises:
      UserError: a name or value of the config does not work; the message says which.
    """
    model = model or build_model(config)
    train, holdout = split or splits.draw(config)
    test = splits.source(config, "test")
    log.info(
        "%s: %d images to train, %d held out, %d good and %d anomalous%s to test, at %d px",
        f"{config.data.name} {config.data.category}".strip(),
        len(train),
        len(holdout),
        np.sum(test.labels == 0),
        np.sum(test.labels == 1),
        f" and {unknown} of unknown label" if (unknown := np.sum(test.labels == -1)) else "",
        model.image_size,
    )
    normal, size = evenly_spaced(train, config.eval.calibration_images), config.eval.batch_size
    if for_training:
        train_loader = _train_loader(model, train)
        placement.check(config, train_loader.deterministic)
    else:  # batches as large as in training: as many devices share them
        visits = len(train) * config.data.repeat
        train_loader = _loader(model, train, min(config.train.batch_size, visits))
    devices = devices or parallel.devices(train_loader.batch_size)
    model = replace(model, evaluator=model.evaluator.on(devices))
    share = {"multiple": devices.count, "shard": parallel.host()}
    return System(
        **vars(model),
        train=train,
        holdout=holdout,
        test=test,
        train_loader=train_loader,
        test_loader=_loader(model, test, size, **share),
        calibration_loader=_loader(model, normal, size, **share),
        calibration_rows=normal.indices,
        holdout_loader=_loader(model, holdout, size, **share) if len(holdout) else None,
        devices=devices,
    )


def _white(config: config_dict.ConfigDict) -> int:
    return int(config.data.options.get("white", WHITE))


def _train_loader(model: Model, source: Source) -> Loader:
    data = model.config.data
    return _loader(
        model,
        source,
        model.config.train.batch_size,
        shuffle=True,
        filter=data.train_filter or data.filter,
        rotation_degrees=data.rotation_degrees,
        sharpen=data.sharpen,
        share_sharpening=data.share_sharpening,
        repeat=data.repeat,
        synthesis=anomalies.find(model.config, model.method),
        drop_last=data.drop_last,
        processes=data.processes,
        shard=parallel.host(),
    )


def _loader(model: Model, source: Source, batch_size: int, **options: Any) -> Loader:
    """Batches of a source, in order and as it is unless options say otherwise."""
    data = model.config.data
    plain = {"shuffle": False, "rotation_degrees": 0.0, "filter": data.filter}
    return Loader(
        source,
        image_size=model.image_size,
        batch_size=batch_size,
        mean=model.mean,
        std=model.std,
        seed=model.config.seed,
        cache_bytes=data.cache_mb * 2**20,
        workers=data.workers,
        **(plain | options),
    )
