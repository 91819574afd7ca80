"""From a config to all parts of a run: the model, and its images to learn from and to test on."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from ml_collections import config_dict

from flowad_jax import parallel
from flowad_jax.data.augment import Augmentation
from flowad_jax.data.findings import findings
from flowad_jax.data.images import WHITE, depth_advice
from flowad_jax.data.loader import Loader
from flowad_jax.data.record import Source
from flowad_jax.data.subset import NamesOnly, OnCanvas, evenly_spaced
from flowad_jax.data.synthetic_test import SyntheticTest
from flowad_jax.detector import splits
from flowad_jax.detector.model import DetectorModel, build_model, call
from flowad_jax.detector.splits import Split
from flowad_jax.errors import UserError
from flowad_jax.evaluation import mask_resolution
from flowad_jax.features import placement
from flowad_jax.features.batches import Encoded, FeatureSets
from flowad_jax.lookup import check_choice
from flowad_jax.parallel import Devices
from flowad_jax.synthesis import KINDS
from flowad_jax.training import build_synthesis, loggers
from flowad_jax.training.optimizer import Optimizer, make_optimizer
from flowad_jax.training.schedules import Schedule

log = logging.getLogger("flowad_jax")


@dataclass(frozen=True)
class Experiment(DetectorModel):
    """Everything that a config describes, ready to train or to evaluate.

    Attributes:
      train, holdout: sources of normal images.
      test: source of the images that are scored for the report.
      scored_images: what these are: of a ``"test"`` set, or, where there is none, normal images
        that were ``"held-out"``, or ``"training"`` images if none were. Test images of which
        no label is known are ``"unlabelled"``, those with made-up defects ``"synthetic"``.
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
    scored_images: str
    train_loader: Loader
    test_loader: Loader
    calibration_loader: Loader
    calibration_rows: np.ndarray
    holdout_loader: Loader | None
    devices: Devices

    @cached_property
    def native_masks(self) -> list[np.ndarray]:
        """Masks of the test images at their own sizes."""
        return mask_resolution.read_masks(self.test)

    @property
    def shown_images(self) -> Source:
        """The test images as reports show them: stretched ones at their own aspect."""
        if self.canvas.fit == "stretch":
            return self.test
        return OnCanvas(self.test, self.canvas, self.config.data.filter)

    @cached_property
    def training_findings(self) -> list[str]:
        """What is doubtful about the files of the normal images, if they are at hand, in lines."""
        return self._findings(self.train, self.holdout)

    @cached_property
    def findings(self) -> list[str]:
        """The same, and then what is doubtful about the test images."""
        test = [] if self.scored_images == "synthetic" else self._findings(self.test)
        return list(dict.fromkeys(self.training_findings + test))

    def _findings(self, *sources: Source) -> list[str]:
        at_hand = [source for source in sources if not isinstance(source, NamesOnly)]
        paths = [path for source in at_hand for path in source.paths]
        advice = depth_advice(paths, int(self.config.data.options.get("white", WHITE)))
        lines = [advice] if advice else []
        for source in at_hand:
            lines += findings(source, self.canvas)
        return list(dict.fromkeys(lines))

    @property
    def images_per_epoch(self) -> int:
        """Visits to training images in one epoch of training, also where nothing is trained."""
        visits = len(self.train) * self.config.data.repeat
        left_out = visits % min(self.config.train.batch_size, visits)
        return visits - left_out * self.config.data.drop_last

    @cached_property
    def features(self) -> FeatureSets:
        """Feature maps of all sets, computed from the images every time."""
        variables = self.devices.replicate(self.encoder.variables)

        def encoded(loader: Loader) -> Encoded:
            return Encoded(self.encode, variables, loader, self.devices)

        return FeatureSets(
            train=encoded(self.train_loader),
            calibration=encoded(self.calibration_loader),
            holdout=encoded(self.holdout_loader) if self.holdout_loader else None,
            test=encoded(self.test_loader),
        )

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of all parameter groups."""
        return make_optimizer(self.config.train)

    @property
    def schedule(self) -> Schedule:
        """Learning rate by image batch."""
        train = self.config.train
        return call(
            "train.schedule",
            "flowad_jax.training.schedules",
            train.schedule,
            learning_rate=train.learning_rate,
            epochs=train.epochs,
            steps_per_epoch=len(self.train_loader),
        )


def build(
    config: config_dict.ConfigDict,
    model: DetectorModel | None = None,
    devices: Devices | None = None,
    split: Split | None = None,
    *,
    for_training: bool = True,
    test: Source | None = None,
) -> Experiment:
    """Builds all parts of a run.

    Args:
      config: the recipe.
      model: what turns images into scores, if it is there already.
      devices: share the batches; None: all that can.
      split: the normal images; None draws them.
      for_training: false where nothing will be trained: then ``train_loader`` has the training
        images as they are, and settings that only training needs are not looked at.
      test: images to score; None: those of the data set.

    Raises:
      UserError: a name or value of the config does not work; the message says which.
    """
    if for_training:
        loggers.check(config.train.loggers)
    data, parts = config.data, model or build_model(config)
    train, holdout, normal = split or splits.draw(config)
    test = splits.source(config, "test") if test is None else test
    scored_images = "test" if np.any(test.labels >= 0) else "unlabelled"
    if data.synthetic_test and for_training and len(test):
        why = "the data set has test images of its own"
        raise UserError(f"data.synthetic_test='{data.synthetic_test}': {why}: set it to None")
    if normal is not None and not len(test):
        test, scored_images = _synthetic_test(config, normal, parts), "synthetic"
    log.info(
        "%s: %d images to train, %d held out, %s, at %s px",
        f"{data.name} {data.category or ''}".strip(),
        len(train),
        len(holdout),
        _describe_test(test.labels, "synthetic" if scored_images == "synthetic" else "anomalous"),
        parts.canvas,
    )
    calibration, size = evenly_spaced(train, config.eval.calibration_images), config.eval.batch_size
    if not len(test):
        test, scored_images = (holdout, "held-out") if len(holdout) else (calibration, "training")

    def loader(source: Source, batch_size: int, **options: Any) -> Loader:
        """Batches of a source, in order and as it is unless options say otherwise."""
        plain = {"shuffle": False, "filter": data.filter}
        return Loader(
            source,
            image_size=parts.canvas,
            batch_size=batch_size,
            mean=parts.mean,
            std=parts.std,
            seed=config.seed,
            cache_bytes=data.cache_mb * 2**20,
            workers=data.workers,
            **(plain | options),
        )

    if for_training:
        synthesis = build_synthesis.find(config, parts.method)
        train_loader = loader(
            train,
            config.train.batch_size,
            shuffle=True,
            filter=(synthesis and getattr(synthesis.make, "filter", None)) or data.filter,
            augmentation=Augmentation(data.rotation_degrees, data.sharpen, synthesis, data.jitter),
            repeat=data.repeat,
            drop_last=data.drop_last,
            processes=data.processes,
            shard=parallel.host(),
        )
        placement.check(config, train_loader.deterministic)
    else:  # batches as large as in training: as many devices share them
        train_loader = loader(train, min(config.train.batch_size, len(train) * data.repeat))
    devices = devices or parallel.devices(train_loader.batch_size)
    share = {"multiple": devices.count, "shard": parallel.host()}
    return Experiment(
        **vars(replace(parts, evaluator=parts.evaluator.on(devices))),
        train=train,
        holdout=holdout,
        test=test,
        scored_images=scored_images,
        train_loader=train_loader,
        test_loader=loader(test, size, **share),
        calibration_loader=loader(calibration, size, **share),
        calibration_rows=calibration.indices,
        holdout_loader=loader(holdout, size, **share) if len(holdout) else None,
        devices=devices,
    )


def _synthetic_test(
    config: config_dict.ConfigDict, normal: Source, parts: DetectorModel
) -> SyntheticTest:
    kind, canvas = config.data.synthetic_test, parts.canvas
    check_choice("data.synthetic_test", kind, KINDS)
    if config.eval.mask_size != "network":
        raise UserError(f"data.synthetic_test='{kind}': set eval.mask_size to 'network'")
    return SyntheticTest(normal, kind, config.seed, canvas, config.data.filter)


def _describe_test(labels: np.ndarray, anomalous: str) -> str:
    """The numbers of test images in words."""
    if not len(labels):
        return "no test images"
    unknown = np.sum(labels == -1)
    if unknown == len(labels):
        return f"{unknown} of unknown label to test"
    more = f" and {unknown} of unknown label" if unknown else ""
    return f"{np.sum(labels == 0)} good and {np.sum(labels == 1)} {anomalous}{more} to test"
