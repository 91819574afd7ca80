"""From a config to the parts of a run, each found by its name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from flowad_jax import lookup
from flowad_jax.data import transforms
from flowad_jax.data.pipeline import Loader
from flowad_jax.data.record import Source
from flowad_jax.data.subset import evenly_spaced, few_shot, held_out
from flowad_jax.encoders.load import load
from flowad_jax.errors import UserError
from flowad_jax.evaluation.evaluate import Evaluator
from flowad_jax.features import placement
from flowad_jax.features.batches import Encode, Encoded, FeatureSets, make_encode
from flowad_jax.training import anomalies, checks
from flowad_jax.training.optim import Adam
from flowad_jax.types import Encoder, Method

log = logging.getLogger("flowad_jax")


@dataclass(frozen=True)
class System:
    """Everything that a config describes, ready to train or to evaluate.

    Attributes:
      config: the recipe.
      encoder: the frozen network.
      method: the anomaly detector as pure functions.
      image_size: side of the square that images are resized to, the category's own if it has one.
      train, holdout, test: the image sources.
      train_loader: shuffled and augmented batches.
      test_loader: batches of the test images in order.
      calibration_loader: batches of some training images, as they are.
      calibration_rows: indices of these images among the training images.
      holdout_loader: batches of the normal images that are not trained on, or None.
      encode: the encoder's jitted forward pass, ``(variables, image) -> maps``.
      evaluator: computes scores.
    """

    config: config_dict.ConfigDict
    encoder: Encoder
    method: Method
    image_size: int
    train: Source
    holdout: Source
    test: Source
    train_loader: Loader
    test_loader: Loader
    calibration_loader: Loader
    calibration_rows: np.ndarray
    holdout_loader: Loader | None
    encode: Encode
    evaluator: Evaluator

    @property
    def images_per_epoch(self) -> int:
        """Visits to training images in one epoch."""
        return sum(self.train_loader.images(batch) for batch in range(len(self.train_loader)))

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
        return Encoded(self.encode, self.encoder.variables, loader)

    @property
    def feature_shapes(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """The maps (1, h, w, C) of one image, as methods get them."""
        image = jax.ShapeDtypeStruct((1, self.image_size, self.image_size, 3), np.float32)
        maps = jax.eval_shape(self.encode, self.encoder.variables, image)
        return tuple(jax.ShapeDtypeStruct(x.shape, np.float32) for x in maps)

    @property
    def optimizer(self) -> Adam:
        """The optimizer of all parameter groups."""
        train = self.config.train
        return Adam(
            idle=train.adam_idle,
            eps=train.adam_eps,
            weight_decay=train.weight_decay,
            decay=train.decay,
        )

    @property
    def schedule(self) -> Callable:
        """Learning rate by image batch."""
        train = self.config.train
        return _call(
            "train.schedule",
            "flowad_jax.training",
            train.schedule,
            learning_rate=train.learning_rate,
            epochs=train.epochs,
            steps_per_epoch=len(self.train_loader),
        )


def build(config: config_dict.ConfigDict) -> System:
    """Builds all parts of a run.

    Raises:
      UserError: a name or value of the config does not work; the message says which.
    """
    checks.numbers(config)
    encoder = load(seed=config.seed, **config.encoder)
    log.info("encoder %s, weights %s", encoder.spec.name, encoder.source["weights"])
    size = _image_size(config.data, encoder)
    method = _call("method", "flowad_jax.methods", config.method)
    checks.scoring(config, method)
    train, test = (_source(config, split) for split in ("train", "test"))
    train, holdout = held_out(train, config.data.holdout, config.seed)
    if config.data.few_shot:
        train = few_shot(train, config.data.few_shot, config.seed)
    log.info(
        "%s: %d images to train, %d held out, %d good and %d anomalous to test, at %d px",
        f"{config.data.name} {config.data.category}".strip(),
        len(train),
        len(holdout),
        np.sum(test.labels == 0),
        np.sum(test.labels == 1),
        size,
    )
    loader = _loader_factory(config, encoder, size)
    train_loader = loader(
        train,
        config.train.batch_size,
        shuffle=True,
        filter=config.data.train_filter or config.data.filter,
        rotation_degrees=config.data.rotation_degrees,
        sharpen=config.data.sharpen,
        share_sharpening=config.data.share_sharpening,
        repeat=config.data.repeat,
        synthesis=anomalies.find(config, method),
        drop_last=config.data.drop_last,
    )
    placement.check(config, train_loader.deterministic)
    normal = evenly_spaced(train, config.eval.calibration_images)
    return System(
        config,
        encoder,
        method,
        size,
        train,
        holdout,
        test,
        train_loader=train_loader,
        test_loader=loader(test, config.eval.batch_size),
        calibration_loader=loader(normal, config.eval.batch_size),
        calibration_rows=normal.indices,
        holdout_loader=loader(holdout, config.eval.batch_size) if len(holdout) else None,
        encode=make_encode(encoder, config.cache.dtype, method.sees_images),
        evaluator=Evaluator(method, (size, size)),
    )


def _source(config: config_dict.ConfigDict, split: str) -> Source:
    data = config.data
    build_source = lookup.find("flowad_jax.data", data.name)
    return _checked(
        "data.options", build_source, data.root, data.category, split, **data.options.to_dict()
    )


def _loader_factory(
    config: config_dict.ConfigDict, encoder: Encoder, image_size: int
) -> Callable[..., Loader]:
    spec = encoder.spec
    mean, std = transforms.norm(config.data.norm, spec.mean, spec.std)

    def loader(source: Source, batch_size: int, **options: Any) -> Loader:
        plain = {"shuffle": False, "rotation_degrees": 0.0, "filter": config.data.filter}
        return Loader(
            source,
            image_size=image_size,
            batch_size=batch_size if "shuffle" in options else min(batch_size, len(source)),
            mean=mean,
            std=std,
            seed=config.seed,
            cache_bytes=config.data.cache_mb * 2**20,
            workers=config.data.workers,
            **(plain | options),
        )

    return loader


def _call(key: str, package: str, section: config_dict.ConfigDict, **extra: Any) -> Any:
    """Calls what a section names with the section's other keys."""
    arguments = section.to_dict()
    function = lookup.find(package, arguments.pop("name"))
    return _checked(key, function, **arguments, **extra)


def _checked(key: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        raise UserError(f"{key}: {error}") from error


def _image_size(data: config_dict.ConfigDict, encoder: Encoder) -> int:
    own = data.category in data.category_sizes
    size = data.category_sizes[data.category] if own else data.image_size
    if encoder.spec.fixed_size not in (None, size):
        key = f"data.category_sizes.{data.category}" if own else "data.image_size"
        name, fixed = encoder.spec.name, encoder.spec.fixed_size
        raise UserError(f"{key}={size}: {name} only works with {fixed}")
    return size
