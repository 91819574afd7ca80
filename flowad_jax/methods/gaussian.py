"""The Gaussian baseline: one affine flow per scale, fitted in closed form in one pass.

With a covariance for each position it is PaDiM (Defard, Setkov, Loesch, Audigier: "PaDiM: a Patch
Distribution Modeling Framework for Anomaly Detection and Localization", 2020), but for the choice
of features. It has no parameters and takes no gradient steps; every flow should beat it. Read from
top to bottom: features, fit, likelihood maps, scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowad_jax import memory
from flowad_jax.errors import UserError
from flowad_jax.lookup import check_choice
from flowad_jax.methods import common
from flowad_jax.methods.common import group, require
from flowad_jax.ops import arrays, feature_maps
from flowad_jax.ops.moments import Moments, oas_shrinkage, shrunk
from flowad_jax.types import Aux, Batch, Calibration, Method, Phase, Scores, Tree

COVARIANCES = ("shared", "position")
SCORES = ("distance", "density")
TINY: dict[str, Any] = {}  # options that tests use


def build(
    covariance: str = "position",
    shrinkage: float | None = None,
    ridge: float = 0.0,
    channels: int | None = None,
    fuse: bool = False,
    score: str = "distance",
    smoothing: float = 0.0,
) -> Method:
    """Assembles the Gaussian baseline.

    Args:
      covariance: one for each ``"position"`` (PaDiM), which knows where things are and wants parts
        that lie alike in all images, or one ``"shared"`` by all positions of a map.
      shrinkage: share of the covariance that its mean variance replaces, 0 to 1; None finds the
        one that suits the number of rows (oracle approximating shrinkage).
      ridge: added to all variances (PaDiM: 0.01).
      channels: keeps so many channels of each map, drawn at random (PaDiM: 100 or 550); None keeps
        all.
      fuse: joins the maps of all scales to one, at the size of the finest, each averaged over
        3 x 3 positions (as PatchFlow).
      score: ``"distance"`` (Mahalanobis, PaDiM), or ``"density"``, which also counts how wide the
        distribution of a position is: of another order with one covariance for each position.
      smoothing: standard deviation in pixels of the Gaussian that smooths the anomaly map (PaDiM:
        4); 0 for none.

    Raises:
      UserError: an option has a value that does not exist.
    """
    check_choice("method.covariance", covariance, COVARIANCES)
    check_choice("method.score", score, SCORES)
    if shrinkage is not None:
        require(0 <= shrinkage <= 1, "shrinkage", shrinkage, "a share lies in 0 ... 1")
    require(0 <= ridge < math.inf, "ridge", ridge, "must be 0 or above")
    require(0 <= smoothing < math.inf, "smoothing", smoothing, "must be 0 or above")
    require(channels is None or channels >= 1, "channels", channels, "must be at least 1, or None")
    model = _Gaussian(covariance == "position", shrinkage, ridge, channels, fuse, score)
    of_density = score == "density"
    return Method(
        init=model.init,
        phases=model.phases,
        log_probs=model.log_probs,
        calibrate=calibrate,
        aggregate=partial(aggregate, of_density=of_density, smoothing=smoothing),
        published="per_image",
        fit=model.fit,
    )


@dataclass(frozen=True)
class _Gaussian:
    """What the maps of normal images are distributed like; the fields are options."""

    by_position: bool
    shrinkage: float | None
    ridge: float
    channels: int | None
    fuse: bool
    score: str

    def init(self, rng: jax.Array, batch: Batch) -> dict[str, Tree]:
        """Draws the channels; before the fit, features pass as they are."""
        maps = jax.eval_shape(self._joined, batch.maps)
        buffers = {}
        for scale, x in enumerate(maps):
            _, height, width, total = x.shape
            count = self.channels or total
            require(count <= total, "channels", count, f"a map has {total}")
            places = (height, width) if self.by_position else ()
            _check_memory(math.prod(places), count)
            buffers[group(scale)] = {
                "channels": jax.random.permutation(jax.random.fold_in(rng, scale), total)[:count],
                "mean": jnp.zeros((*places, count)),
                "whitening": jnp.broadcast_to(jnp.eye(count), (*places, count, count)),
            }
        return {"params": {}, "buffers": buffers}

    def fit(self, variables: Mapping[str, Tree], batches: Iterable[Batch]) -> dict[str, Tree]:
        """Returns buffers with mean and whitening of the normal images; batches are on the host."""
        buffers, features = variables["buffers"], jax.jit(self._features)
        moments = common.moments_of(batches, partial(features, buffers), self.by_position)
        return {
            name: self._fitted(scale, old, moments[scale])
            for scale, (name, old) in enumerate(buffers.items())
        }

    def log_probs(
        self, variables: Mapping[str, Tree], batch: Batch
    ) -> tuple[Float[Array, "B h w"], ...]:
        """Log-densities per channel, or minus half the mean square of what is whitened."""
        buffers, maps = variables["buffers"], []
        for scale, x in enumerate(self._features(buffers, batch.maps)):
            mean, whitening = (buffers[group(scale)][name] for name in ("mean", "whitening"))
            places = "hw" if self.by_position else ""
            z = jnp.einsum(f"bhwc,{places}dc->bhwd", x - mean, whitening, precision="highest")
            exponent = -0.5 * jnp.mean(z**2, axis=-1)
            if self.score == "density":
                diagonal = jnp.diagonal(whitening, axis1=-2, axis2=-1)
                log_det = jnp.mean(jnp.log(diagonal), axis=-1)
                exponent += log_det - 0.5 * arrays.LOG_2PI
            maps.append(exponent)
        return tuple(maps)

    def phases(self, buffers: Tree, batch: Batch, rng: jax.Array) -> tuple[Phase, ...]:
        """The loss alone: nothing is left for gradients."""
        del rng

        def loss_fn(params: Tree, updated: Tree, minibatch: Tree) -> tuple[jax.Array, Aux]:
            given = Batch(minibatch["maps"])
            maps = self.log_probs({"params": params, "buffers": buffers}, given)
            nll = -sum(jnp.mean(x, axis=(1, 2)) for x in maps) / len(maps)
            loss = jnp.sum(minibatch["weight"] * nll) / jnp.sum(minibatch["weight"])
            return loss, Aux(updated, {})

        minibatch = {"maps": batch.maps, "weight": batch.weight}
        return (common.single_step((), loss_fn, minibatch, jnp.ones((), bool)),)

    def _joined(self, maps: Sequence[Array]) -> tuple[Array, ...]:
        return (feature_maps.fused(maps),) if self.fuse else tuple(maps)

    def _features(self, buffers: Tree, maps: Sequence[Array]) -> tuple[Array, ...]:
        """The chosen channels of the maps, fused or not."""
        joined = self._joined(maps)
        if self.channels is None:
            return joined
        return tuple(x[..., buffers[group(scale)]["channels"]] for scale, x in enumerate(joined))

    def _fitted(self, scale: int, old: Mapping[str, Array], seen: Moments) -> dict[str, Any]:
        covariance = seen.covariance
        given = self.shrinkage
        share = oas_shrinkage(covariance, seen.count) if given is None else given
        covariance = shrunk(covariance, share) + self.ridge * np.eye(covariance.shape[-1])
        try:
            whitening = np.linalg.inv(np.linalg.cholesky(covariance))
        except np.linalg.LinAlgError as error:
            raise UserError(
                f"method.name='gaussian': the features of scale {scale} do not vary enough over "
                f"{seen.count} rows: use more images, covariance='shared' or ridge=0.01"
            ) from error
        found = {"mean": seen.mean, "whitening": whitening}
        fitted = {k: jnp.asarray(v.reshape(old[k].shape), old[k].dtype) for k, v in found.items()}
        return {**old, **fitted}


def _check_memory(places: int, channels: int) -> None:
    """Raises a UserError if the covariances of a map have no room while they are fitted."""
    needed, free = 4 * 8 * places * channels**2, memory.host()  # four of them in float64
    if needed > free:
        raise UserError(
            f"method.channels: covariances of {places} positions with {channels} channels take "
            f"{memory.text(needed)}, but {memory.text(free)} are free: keep fewer, such as 100, or "
            "set method.covariance to 'shared'"
        )


def calibrate(
    log_probs: Sequence[Float[np.ndarray, "N h w"]], image_size: tuple[int, int]
) -> Calibration:
    """Finds the largest log-density of every scale, from which scores of densities count."""
    del image_size
    return Calibration(common.scale_max(log_probs), np.float64(0.0))


def aggregate(
    log_probs: Sequence[Float[np.ndarray, "N h w"]],
    image_size: tuple[int, int],
    calibration: Calibration | None = None,
    of_density: bool = False,
    smoothing: float = 0.0,
) -> Scores:
    """Turns likelihood maps into scores, image by image.

    A map is the mean over scales of the distance from the mean, in standard deviations: of a
    density the distance that a standard normal of one dimension had to have, from its highest
    value. An image scores as its worst pixel.
    """
    xp = arrays.namespace(log_probs[0])
    highest = np.zeros(len(log_probs))
    if of_density and calibration is not None:
        highest = calibration.scale_max
    pixel = []
    for maps in common.by_image(log_probs):
        distances = [
            xp.sqrt(xp.maximum(2.0 * (top - x), 0.0)) for x, top in zip(maps, highest, strict=True)
        ]
        total: Any = sum(arrays.resize_half_pixel(x, image_size) for x in distances)
        pixel.append(arrays.smoothed(total / len(maps), smoothing)[0])
    return Scores(xp.stack([x.max() for x in pixel]), xp.stack(pixel))
