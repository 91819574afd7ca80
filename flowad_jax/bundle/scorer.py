"""What an exported detector computes, as one function that JAX can trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from flowad_jax.data import transforms
from flowad_jax.detector.calibration import Part
from flowad_jax.detector.model import DetectorModel
from flowad_jax.types import Scores

Image = UInt8[Array, "B H W 3"]
Place = Int[Array, "B 4"]


class Scorer:
    """Scores images on the canvas, each by itself and in float32.

    Decoding and resizing come before it, p-values and regions after it.
    """

    def __init__(self, model: DetectorModel, parts: Sequence[Part]):
        """Takes what `Predictor` judges with; the weights become constants of what is traced."""
        self._model, self._parts = model, parts

    @property
    def inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What it takes: ``image`` and, where images are padded, ``place``, for one image.

        ``place`` is the part of the canvas that shows the image: top, left, height, width.
        """
        canvas = self._model.canvas
        found = {"image": jax.ShapeDtypeStruct((1, *canvas.shape, 3), jnp.uint8)}
        if canvas.fit == "pad":
            found["place"] = jax.ShapeDtypeStruct((1, 4), jnp.int32)
        return found

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of what `trace` returns."""
        parts, scales = range(len(self._parts)), range(len(self._model.likelihood_shapes))
        return (
            *(f"features {tap}" for tap in range(len(self._model.batch_shapes.maps))),
            *(f"likelihoods {part}.{scale}" for part in parts for scale in scales),
            *("score", "map"),
        )

    def __call__(
        self, image: Image, place: Place | None = None
    ) -> tuple[Float[Array, "B K"], Float[Array, "B H W"]]:
        """Returns the scores of images by K parts, and the means of the parts' anomaly maps."""
        score, anomaly_map = self.trace(image, place)[-2:]
        return score, anomaly_map

    def trace(self, image: Image, place: Place | None = None) -> tuple[Array, ...]:
        """Returns all stages in order: features, likelihoods by part and scale, scores and maps."""
        model = self._model
        traced: Any = image
        pixels = transforms.normalize(traced, model.mean, model.std)
        batch = model.encode(model.encoder.variables, pixels)
        seen, scores = list(batch.maps), []
        for part in self._parts:
            log_probs = model.method.log_probs(part.variables, batch)
            seen += log_probs
            if place is not None:
                log_probs = tuple(_hidden(x, place, model.canvas.shape) for x in log_probs)
            scores.append(self._scores(log_probs, part))
        by_part = jnp.stack([one.image for one in scores], axis=1)
        return (*seen, by_part, sum(one.pixel for one in scores) / len(scores))

    def _scores(self, log_probs: Sequence[Float[Array, "B h w"]], part: Part) -> Scores:
        evaluator: Any = self._model.evaluator  # whose arrays are traced ones here

        def one_image(*maps: Float[Array, "h w"]) -> tuple[Array, Array]:
            found = evaluator.scores([x[None] for x in maps], part.fitted.calibration)
            return found.image[0], found.pixel[0]

        found: Any = jax.vmap(one_image)(*log_probs)
        return Scores(*found)


def _hidden(
    log_probs: Float[Array, "B h w"], place: Place, canvas: tuple[int, int]
) -> Float[Array, "B h w"]:
    """Does what `evaluation.padding.hide_padding` does."""

    def touched(axis: int) -> Array:
        count, side = log_probs.shape[axis + 1], canvas[axis]
        start, length, position = place[:, axis, None], place[:, axis + 2, None], jnp.arange(count)
        last = -(-(start + length) * count // side)
        return (position >= start * count // side) & (position < last)

    inside = touched(0)[:, :, None] & touched(1)[:, None, :]
    most = jnp.max(jnp.where(inside, log_probs, -jnp.inf), axis=(1, 2), keepdims=True)
    return jnp.where(inside, log_probs, most)
