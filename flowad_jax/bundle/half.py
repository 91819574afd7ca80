"""Weights of 16 bits for bundles of half the size; everything is computed in float32.

Rounding the weights moves the scores by more than what counts as equal, so the held-out images are
judged again by the rounded detector: what a false-alarm rate promises holds for the detector that
is exported. All else follows as if it had been trained with these weights.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowad_jax.bundle import reference
from flowad_jax.bundle.scorer import Image, Place, Scorer
from flowad_jax.data.record import Source
from flowad_jax.detector.calibration import Part
from flowad_jax.detector.model import DetectorModel
from flowad_jax.errors import UserError
from flowad_jax.inference.predictor import Predictor
from flowad_jax.types import Tree

log = logging.getLogger("flowad_jax")

_LEAST = 1024  # numbers of a tensor that is worth it


def rounded(predictor: Predictor) -> Predictor:
    """Returns a detector whose weights are numbers of 16 bits, with thresholds of its own.

    Raises:
      UserError: the images that were held out are not at hand.
    """
    model, parts = _changed(predictor.model, predictor.parts, lambda x: np.float32(_narrow(x)))
    held_out, config = predictor.held_out, model.config
    if config.eval.calibration != "cross_fast" and any(len(x.fitted.image) for x in parts):
        try:
            if held_out is None:
                raise UserError("nobody knows which they are")
            sources = held_out.sources()
        except UserError as error:
            message = "--dtype=float16 has to judge the images again that were held out"
            raise UserError(f"{message}: {error}") from None
        alone = copy.copy(predictor)
        alone.model, parts = model, list(parts)
        for number, source in enumerate(sources):
            alone.parts = [parts[number]]
            parts[number] = _fitted(alone, source)
    found = Predictor(model, parts, predictor.threshold, held_out)
    _log_moves(predictor.parts, parts)
    return found


def _fitted(alone: Predictor, source: Source) -> Part:
    """The only part of a detector, with the scores of its held-out images."""
    (part,) = alone.parts
    images = reference.Images("held-out images", [source])
    scores, peaks = [], []
    for first in range(0, len(images), alone.batch_size):
        rows = range(len(images))[first : first + alone.batch_size]
        loaded = [alone.load_image(images[row]) for row in rows]
        (found,) = reference.scores(alone, loaded)
        scores.append(found.image)
        peaks.append(found.pixel.max(axis=(1, 2)))
    fitted = part.fitted._replace(image=np.concatenate(scores), peak=np.concatenate(peaks))
    return part._replace(fitted=fitted)


def _log_moves(before: Sequence[Part], after: Sequence[Part]) -> None:
    old, new = (np.concatenate([x.fitted.image for x in parts]) for parts in (before, after))
    if len(old):
        moved = np.max(np.abs(old - new)) / (np.max(np.abs(old)) or 1.0)
        line = "float16 moves scores of held-out images by at most %.1g of the largest"
        log.info(line, moved)


class HalfScorer(Scorer):
    """A `Scorer` whose constants have 16 bits in what is traced, where none of them changes."""

    def trace(self, image: Image, place: Place | None = None) -> tuple[jax.Array, ...]:
        """See `Scorer.trace`."""
        model, parts = _changed(
            self._model, self._parts, lambda x: jnp.asarray(_narrow(x)).astype(jnp.float32)
        )
        return Scorer(model, parts).trace(image, place)


def _changed(
    model: DetectorModel, parts: Sequence[Part], change: Any
) -> tuple[DetectorModel, list[Part]]:
    """Changes all large tensors of float32 that fit into 16 bits."""

    def each(tree: Tree) -> Tree:
        return jax.tree.map(lambda x: change(x) if _is_large(x) else x, tree)

    encoder = model.encoder._replace(variables=each(model.encoder.variables))
    changed = [part._replace(variables=each(part.variables)) for part in parts]
    return dataclasses.replace(model, encoder=encoder), changed


def _is_large(values: Any) -> bool:
    if getattr(values, "dtype", None) != np.float32 or values.size < _LEAST:
        return False
    return bool(np.max(np.abs(values)) <= np.finfo(np.float16).max)


def _narrow(values: Any) -> np.ndarray:
    return np.asarray(values, np.float16)


def compress(model: Any) -> None:
    """Stores the large tensors of an ONNX model in 16 bits, where none of them changes."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if not _is_large(values):
            continue
        narrow = _narrow(values)
        if np.array_equal(values, narrow):
            name, stored = tensor.name, f"{tensor.name}_16"
            tensor.CopyFrom(numpy_helper.from_array(narrow, stored))
            casts.append(helper.make_node("Cast", [stored], [name], stored, to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
