"""The part of a run that needs no images: encoder and method, each found by its name."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from flowad_jax import jax_config, lookup, memory
from flowad_jax.canvas import Canvas
from flowad_jax.data import transforms
from flowad_jax.detector import config_schema, ensemble, robust
from flowad_jax.encoders.load import load
from flowad_jax.errors import UserError
from flowad_jax.evaluation import conformal, decisions, mask_resolution
from flowad_jax.evaluation.scores import Evaluator
from flowad_jax.features.batches import DTYPES, Encode, make_encode
from flowad_jax.types import Batch, Encoder, Method

log = logging.getLogger("flowad_jax")


@dataclass(frozen=True)
class DetectorModel:
    """What turns images into scores, once it has a state.

    Attributes:
      config: the recipe.
      encoder: the frozen network.
      method: the anomaly detector as pure functions.
      canvas: what images are brought to, of the category's own size if it has one.
      mean, std: normalisation of pixels in [0, 1].
      encode: the encoder's jitted forward pass, see `make_encode`.
      evaluator: computes scores.
    """

    config: config_dict.ConfigDict
    encoder: Encoder
    method: Method
    canvas: Canvas
    mean: transforms.Triple
    std: transforms.Triple
    encode: Encode
    evaluator: Evaluator

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images as the encoder sees them."""
        return self.canvas.shape

    @functools.cached_property
    def batch_shapes(self) -> Batch:
        """Maps (1, h, w, C), and image if needed, of a batch of one image, as methods get it."""
        image = jax.ShapeDtypeStruct((1, *self.image_size, 3), np.float32)
        return jax.eval_shape(self.encode, self.encoder.variables, image)

    @functools.cached_property
    def variable_shapes(self) -> dict[str, Any]:
        """``params`` and ``buffers`` as `jax.ShapeDtypeStruct`, without computing anything.

        Raises:
          UserError: the method does not fit the encoder's feature maps.
        """
        return jax.eval_shape(self.method.init, jax.random.key(0), self.batch_shapes)

    @functools.cached_property
    def likelihood_shapes(self) -> tuple[tuple[int, int], ...]:
        """(h, w) of the maps of likelihoods that the method makes of a batch."""
        found = jax.eval_shape(self.method.log_probs, self.variable_shapes, self.batch_shapes)
        return tuple(x.shape[1:] for x in found)


def build_model(config: config_dict.ConfigDict) -> DetectorModel:
    """Builds what a config says about encoder and method; reads no images.

    Raises:
      UserError: a name or value of the config does not work; the message says which.
    """
    config_schema.check(config)
    conformal.check_rate(config.eval.false_alarm_rate)
    lookup.check_choice("eval.calibration", config.eval.calibration, decisions.CALIBRATIONS)
    lookup.check_choice("eval.mask_size", config.eval.mask_size, mask_resolution.MASK_SIZES)
    lookup.check_choice("cache.dtype", config.cache.dtype, DTYPES)
    jax_config.set_matmul_precision(config.precision)
    encoder = load(seed=config.seed, **config.encoder)
    log.info("encoder %s, weights %s", encoder.spec.name, encoder.source["weights"])
    canvas = _canvas(config.data, encoder)
    _check_memory(config.eval.batch_size, canvas)
    method = call("method", "flowad_jax.methods", config.method)
    if not isinstance(method, Method):  # a function of somebody else's
        kind = type(method).__name__
        raise UserError(f"method.name='{config.method.name}': returns {kind}, not a Method")
    if config.train.ensemble > 1:
        method = ensemble.ensemble(method, config.train.ensemble)
    if config.train.whiten:
        method = robust.whitened(method)
    if config.train.feature_noise:
        method = robust.noisy(method, config.train.feature_noise)
    scoring, forms = config.eval.scoring, ("calibrated", method.published)
    if scoring not in forms:
        name = config.method.name
        raise UserError(f"eval.scoring='{scoring}': method {name} has {' and '.join(forms)}")
    mean, std = transforms.norm(config.data.norm, encoder.spec.mean, encoder.spec.std)
    return DetectorModel(
        config,
        encoder,
        method,
        canvas,
        mean,
        std,
        encode=make_encode(encoder, config.cache.dtype, method.needs_image),
        evaluator=Evaluator(method, canvas.shape, config.eval.image_score),
    )


def sibling(model: DetectorModel, config: config_dict.ConfigDict) -> DetectorModel:
    """Returns the model of a config that differs in data and seed alone, with the same encoder.

    Raises:
      UserError: the encoder's weights depend on the seed.
    """
    if config.encoder.weights == "random" and config.seed != model.config.seed:
        raise UserError(
            "train.stack: its detectors share an encoder, but random weights are others for each "
            "seed: set encoder.weights"
        )
    return replace(model, config=config, canvas=_canvas(config.data, model.encoder))


def call(key: str, package: str, section: config_dict.ConfigDict, **extra: Any) -> Any:
    """Calls what a section ``key`` of a config names, in a package, with the section's other keys.

    Raises:
      UserError: no such name, or no such argument.
    """
    arguments = section.to_dict()
    function = lookup.find(package, arguments.pop("name"))
    lookup.check_arguments(key, function, arguments)
    return checked(key, function, **arguments, **extra)


def checked(key: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a function; an argument that it does not take is the fault of the config at ``key``."""
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        raise UserError(f"{key}: {error}") from error


def _canvas(data: config_dict.ConfigDict, encoder: Encoder) -> Canvas:
    own = bool(data.category) and data.category in data.category_sizes
    usual = Canvas.of(data.image_size, data.fit)
    canvas = Canvas.of(data.category_sizes[data.category], data.fit) if own else usual
    spec, key = encoder.spec, f"data.category_sizes.{data.category}" if own else "data.image_size"
    if any(side % spec.multiple for side in canvas.shape):
        near = (max(1, round(side / spec.multiple)) * spec.multiple for side in canvas.shape)
        given, other = (_spelled(Canvas(*shape)) for shape in (canvas.shape, near))
        raise UserError(
            f"{key}={given}: {spec.name} takes multiples of {spec.multiple}, as {other}"
        )
    if canvas != usual:
        line = "category %s: %s px instead of %s px (data.category_sizes)"
        log.info(line, data.category, canvas, usual)
    if spec.size is not None and canvas.shape != (spec.size, spec.size):
        log.info("position codes of %d px are interpolated to %s px", spec.size, canvas)
    return canvas


def _spelled(canvas: Canvas) -> str:
    """A size as a recipe has it."""
    return str(canvas.shape if isinstance(canvas.size, list) else canvas.size)


def _check_memory(count: int, canvas: Canvas) -> None:
    """Raises a UserError if not even the pixels of one batch have room in memory."""
    needed, free = 12 * count * canvas.height * canvas.width, memory.host()  # float32, 3 a pixel
    if needed > free:
        raise UserError(
            f"eval.batch_size={count}: so many images of {canvas} px take {memory.text(needed)}, "
            f"but {memory.text(free)} of memory are free; set it or data.image_size lower"
        )
