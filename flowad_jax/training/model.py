"""The part of a run that needs no images: encoder and method, each found by its name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from flowad_jax import lookup, programs
from flowad_jax.data import transforms
from flowad_jax.encoders.load import load
from flowad_jax.errors import UserError
from flowad_jax.evaluation.evaluate import Evaluator
from flowad_jax.features.batches import Encode, make_encode
from flowad_jax.training import checks
from flowad_jax.training.optim import Adam
from flowad_jax.types import Encoder, Method

log = logging.getLogger("flowad_jax")


@dataclass(frozen=True)
class Model:
    """What turns images into scores, once it has a state.

    Attributes:
      config: the recipe.
      encoder: the frozen network.
      method: the anomaly detector as pure functions.
      image_size: side of the square that images are resized to, the category's own if it has one.
      mean, std: normalisation of pixels in [0, 1].
      encode: the encoder's jitted forward pass, ``(variables, image) -> maps``.
      evaluator: computes scores.
    """

    config: config_dict.ConfigDict
    encoder: Encoder
    method: Method
    image_size: int
    mean: transforms.Triple
    std: transforms.Triple
    encode: Encode
    evaluator: Evaluator

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


def build_model(config: config_dict.ConfigDict) -> Model:
    """Builds what a config says about encoder and method; reads no images.

    Raises:
      UserError: a name or value of the config does not work; the message says which.
    """
    checks.values(config)
    programs.multiply_in(config.precision)
    encoder = load(seed=config.seed, **config.encoder)
    log.info("encoder %s, weights %s", encoder.spec.name, encoder.source["weights"])
    size = _image_size(config.data, encoder)
    checks.memory(config, size)
    method = call("method", "flowad_jax.methods", config.method)
    if not isinstance(method, Method):  # a function of somebody else's
        kind = type(method).__name__
        raise UserError(f"method.name='{config.method.name}': returns {kind}, not a Method")
    checks.scoring(config, method)
    mean, std = transforms.norm(config.data.norm, encoder.spec.mean, encoder.spec.std)
    return Model(
        config,
        encoder,
        method,
        size,
        mean,
        std,
        encode=make_encode(encoder, config.cache.dtype, method.sees_images),
        evaluator=Evaluator(method, (size, size), config.eval.image_score, config.eval.top),
    )


def sibling(model: Model, config: config_dict.ConfigDict) -> Model:
    """The model of a config that differs in data and seed alone, with the same encoder.

    Raises:
      UserError: the encoder's weights depend on the seed.
    """
    if config.encoder.weights == "random" and config.seed != model.config.seed:
        raise UserError(
            "train.stack: its members share an encoder, but random weights are others for each "
            "seed: set encoder.weights"
        )
    return replace(model, config=config, image_size=_image_size(config.data, model.encoder))


def call(key: str, package: str, section: config_dict.ConfigDict, **extra: Any) -> Any:
    """Calls what a section of a config names with the section's other keys.

    Args:
      key: dotted name of the section, for messages.
      package: where plain names are looked up.
      section: has a ``name``.
      **extra: further arguments.

    Raises:
      UserError: no such name, or no such argument.
    """
    arguments = section.to_dict()
    function = lookup.find(package, arguments.pop("name"))
    lookup.check_arguments(key, function, arguments)
    return checked(key, function, **arguments, **extra)


def checked(key: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Calls a function; an argument that it does not take is the fault of a config's section."""
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        raise UserError(f"{key}: {error}") from error


def _image_size(data: config_dict.ConfigDict, encoder: Encoder) -> int:
    own = data.category in data.category_sizes
    size = data.category_sizes[data.category] if own else data.image_size
    spec, key = encoder.spec, f"data.category_sizes.{data.category}" if own else "data.image_size"
    if size % spec.multiple:
        near = max(1, round(size / spec.multiple)) * spec.multiple
        raise UserError(f"{key}={size}: {spec.name} takes multiples of {spec.multiple}, as {near}")
    if size != data.image_size:
        log.info(
            "category %s: %d px instead of %d px (data.category_sizes)",
            data.category,
            size,
            data.image_size,
        )
    if spec.size not in (None, size):
        log.info("position codes of %d px are interpolated to %d px", spec.size, size)
    return size
