"""What any method can be trained with to be more robust: whitened features, noise on features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.methods import common
from flowad_jax.methods.common import group
from flowad_jax.ops.moments import Moments, oas_shrinkage, shrunk
from flowad_jax.types import Batch, Method, Phase, Tree

WHITENING = "whitening"  # the group of buffers


def whitened(method: Method) -> Method:
    """Returns the method on features of mean 0 and covariance 1, shared by all positions of a map.

    The affine map is fitted in one pass before training and then frozen. Likelihoods are those of
    the whitened features: of the features themselves they differ by one constant per scale, its
    log-determinant, which changes no calibrated score.

    Raises:
      UserError: the method has a fit of its own.
    """
    if method.fit is not None:
        raise UserError("train.whiten=True: this method fits the features itself: set it to False")

    def init(rng: jax.Array, batch: Batch) -> dict[str, Tree]:
        channels = [x.shape[-1] for x in batch.maps]
        fresh = {
            group(scale): {"mean": jnp.zeros(count), "factor": jnp.eye(count)}
            for scale, count in enumerate(channels)
        }
        variables = method.init(rng, batch)
        return {**variables, "buffers": {**variables["buffers"], WHITENING: fresh}}

    def phases(buffers: dict[str, Tree], batch: Batch, rng: jax.Array) -> tuple[Phase, ...]:
        return method.phases(_others(buffers), _apply(buffers, batch), rng)

    def log_probs(variables: Mapping[str, Tree], batch: Batch) -> tuple[jax.Array, ...]:
        buffers = variables["buffers"]
        own = {**variables, "buffers": _others(buffers)}
        return method.log_probs(own, _apply(buffers, batch))

    return replace(method, init=init, phases=phases, log_probs=log_probs, fit=_fit)


def noisy(method: Method, share: float) -> Method:
    """Returns the method trained on features with Gaussian noise, as SoftFlow has it.

    Kim, Lee, Kim, Lee: "SoftFlow: Probabilistic Framework for Normalizing Flow on Manifolds",
    NeurIPS 2020; here without the condition. Losses are reported with the noise on.

    Args:
      method: what is trained.
      share: standard deviation of the noise, for 1 of each map's in the batch.
    """

    def phases(buffers: dict[str, Tree], batch: Batch, rng: jax.Array) -> tuple[Phase, ...]:
        own, key = jax.random.split(rng)
        keys = jax.random.split(key, len(batch.maps))
        counted = batch.weight[:, None, None, None]

        def disturbed(key: jax.Array, x: jax.Array) -> jax.Array:
            total = jnp.maximum(jnp.sum(batch.weight), 1) * np.prod(x.shape[1:])
            mean = jnp.sum(counted * x) / total
            deviation = jnp.sqrt(jnp.sum(counted * (x - mean) ** 2) / total)
            return x + share * deviation * jax.random.normal(key, x.shape, x.dtype)

        maps = tuple(disturbed(key, x) for key, x in zip(keys, batch.maps, strict=True))
        return method.phases(buffers, batch._replace(maps=maps), own)

    return replace(method, phases=phases)


def _fit(variables: Mapping[str, Tree], batches: Iterable[Batch]) -> dict[str, Tree]:
    """Returns the buffers with mean and whitening of the normal images."""
    moments = common.moments_of(batches, lambda maps: maps)
    found = {group(scale): fitted for scale, fitted in enumerate(_factors(moments))}
    return {**variables["buffers"], WHITENING: found}


def _factors(moments: Iterable[Moments]) -> Iterator[dict[str, jax.Array]]:
    for scale, seen in enumerate(moments):
        covariance = shrunk(seen.covariance, oas_shrinkage(seen.covariance, seen.count))
        try:
            factor = np.linalg.inv(np.linalg.cholesky(covariance[0]))
        except np.linalg.LinAlgError as error:
            raise UserError(
                f"train.whiten=True: the features of scale {scale} do not vary; set it to False"
            ) from error
        yield {"mean": jnp.float32(seen.mean[0]), "factor": jnp.float32(factor)}


def _apply(buffers: Mapping[str, Tree], batch: Batch) -> Batch:
    affine: Any = buffers[WHITENING]
    maps = (
        (x - affine[group(scale)]["mean"]) @ affine[group(scale)]["factor"].T
        for scale, x in enumerate(batch.maps)
    )
    return batch._replace(maps=tuple(maps))


def _others(buffers: Mapping[str, Tree]) -> dict[str, Tree]:
    return {name: tree for name, tree in buffers.items() if name != WHITENING}
