"""What methods share: flows per scale, phases of one gradient step, scores, checks of options."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from flowad_jax.errors import UserError
from flowad_jax.ops import arrays
from flowad_jax.ops.moments import Moments
from flowad_jax.types import Aux, Batch, Calibration, Phase, Scores, Tree

COMPUTE = {"float32": None, "bfloat16": jnp.bfloat16}  # None: the dtype of the feature maps


def require(holds: bool, option: str, value: Any, demand: str) -> None:
    """Raises a UserError that names an option of a method and what it demands."""
    if not holds:
        raise UserError(f"method.{option}={value}: {demand}")


def group(scale: int) -> str:
    """Name of the parameter group of one scale."""
    return f"scale{scale}"


def init_flows(
    init: Callable[[jax.Array, jax.Array], Mapping[str, Tree]],
    rng: jax.Array,
    maps: Sequence[Float[Array, "B h w C"]],
) -> dict[str, Tree]:
    """Draws the variables of one flow per scale with ``init(key, feature map)``."""
    variables: dict[str, Tree] = {"params": {}, "buffers": {}}
    for scale, feature_map in enumerate(maps):
        for kind, tree in init(jax.random.fold_in(rng, scale), feature_map).items():
            variables[kind][group(scale)] = tree
    return variables


def of_scale(variables: Mapping[str, Tree], scale: int) -> dict[str, Tree]:
    """The variables of the flow of one scale."""
    return {kind: variables[kind][group(scale)] for kind in ("params", "buffers")}


def single_step(
    param_groups: tuple[str, ...],
    loss_fn: Callable[[Tree, Tree, Tree], tuple[jax.Array, Aux]],
    minibatch: Tree,
    active: Bool[Array, ""],
    dimensions: int = 1,
    mutable: tuple[str, ...] = (),
) -> Phase:
    """Returns the phase whose only gradient step sees the whole batch; see `Phase`."""
    minibatches = jax.tree.map(lambda leaf: leaf[None], minibatch)
    return Phase(param_groups, loss_fn, minibatches, active[None], dimensions, mutable)


def nll_step(
    latents: Callable[[Mapping[str, Tree], Sequence[Array]], tuple[Sequence[Array], Array]],
    buffers: Mapping[str, Tree],
    batch: Batch,
    groups: tuple[str, ...] | None = None,
) -> Phase:
    """Returns one gradient step on all flows, by the negative log-likelihood of whole images.

    As in the references it is summed over the dimensions, without the constant of the normal.

    Args:
      latents: ``(variables, maps) -> latents (B, h, w, C) of all scales, log-determinants (B,)``.
      buffers: of all groups.
      batch: with feature maps and weights.
      groups: names of the parameter groups, if others than those with buffers have some.
    """

    def loss_fn(params: Tree, updated: Tree, minibatch: Tree) -> tuple[jax.Array, Aux]:
        found, log_det = latents({"params": params, "buffers": buffers}, minibatch["maps"])
        nll = 0.5 * sum(jnp.sum(z**2, axis=(1, 2, 3)) for z in found) - log_det
        loss = jnp.sum(minibatch["weight"] * nll) / jnp.sum(minibatch["weight"])
        return loss, Aux(updated, {})

    minibatch = {"maps": batch.maps, "weight": batch.weight}
    dimensions = sum(math.prod(x.shape[1:]) for x in batch.maps)
    return single_step(groups or tuple(buffers), loss_fn, minibatch, jnp.ones((), bool), dimensions)


def minus_half_mean_square(z: Float[Array, "B h w C"]) -> Float[Array, "B h w"]:
    """The exponent of a standard normal per channel, which lacks log-determinant and constant."""
    return -0.5 * jnp.mean(z**2, axis=-1)


def scale_max(log_probs: Sequence[Float[np.ndarray, "N h w"]]) -> Float[np.ndarray, " L"]:
    """Largest value of every scale, in float64."""
    return np.array([np.max(values) for values in log_probs], np.float64)


def by_image(log_probs: Sequence[Any]) -> Iterator[list[Any]]:
    """Yields the maps (1, h, w) of all scales of one image after the other, of maps (N, h, w).

    They are float64, or traced ones in their dtype.
    """
    for scales in zip(*log_probs, strict=True):
        yield [
            (x if isinstance(x, jax.core.Tracer) else np.asarray(x, np.float64))[None]
            for x in scales
        ]


def summed_likelihood(
    maps: Sequence[Float[np.ndarray, "1 h w"]],
    highest: Sequence[float] | np.ndarray,
    image_size: tuple[int, int],
) -> Float[np.ndarray, "H W"]:
    """Sum over scales of ``exp(map - highest)``, resized with coinciding corners."""
    exp = arrays.namespace(maps[0]).exp
    total: np.ndarray = sum(
        arrays.resize_align_corners(exp(values - largest), image_size)[0]
        for values, largest in zip(maps, highest, strict=True)
    )
    return total


def moments_of(
    batches: Iterable[Batch],
    features: Callable[[Sequence[Array]], Sequence[Array]],
    by_position: bool = False,
) -> list[Moments]:
    """Gathers mean and covariance of what normal images look like, of each map of features.

    Args:
      batches: on the host.
      features: makes the maps (B, h, w, C) of a batch's own.
      by_position: for each position of a map, instead of one for all.
    """
    found: list[Moments] = []
    for batch in batches:
        normal = (batch.weight > 0) & (batch.label == 0)
        maps = [np.asarray(x)[normal] for x in features(batch.maps)]
        rows = [x.reshape(len(x), -1, x.shape[-1]).transpose(1, 0, 2) for x in maps]
        if not by_position:
            rows = [x.reshape(1, -1, x.shape[-1]) for x in maps]
        found = found or [Moments(len(x), x.shape[-1]) for x in rows]
        for known, seen in zip(found, rows, strict=True):
            known.add(seen)
    return found


def calibrate_by_mean_likelihood(
    log_probs: Sequence[Float[np.ndarray, "N h w"]], image_size: tuple[int, int]
) -> Calibration:
    """Finds the largest mean likelihood of normal images, above which nothing is anomalous."""
    largest = max(_mean_likelihood(maps, image_size).max() for maps in by_image(log_probs))
    return Calibration(scale_max(log_probs), np.float64(largest))


def aggregate_mean_likelihood(
    log_probs: Sequence[Float[np.ndarray, "N h w"]],
    image_size: tuple[int, int],
    calibration: Calibration | None = None,
) -> Scores:
    """Turns likelihood maps into scores, image by image (FastFlow, U-Flow, PatchFlow).

    A map is minus the mean over scales of ``exp(-|z|^2 / (2 C))``; calibrated it counts from the
    largest value of normal images, which changes no order. An image scores as its worst pixel.
    """
    xp = arrays.namespace(log_probs[0])
    highest = 0.0 if calibration is None else calibration.map_max
    pixel = [highest - _mean_likelihood(maps, image_size) for maps in by_image(log_probs)]
    return Scores(xp.stack([x.max() for x in pixel]), xp.stack(pixel))


def _mean_likelihood(
    maps: Sequence[Float[np.ndarray, "1 h w"]], image_size: tuple[int, int]
) -> Float[np.ndarray, "H W"]:
    exp = arrays.namespace(maps[0]).exp
    total: Any = sum(arrays.resize_half_pixel(exp(values), image_size)[0] for values in maps)
    return total / len(maps)
