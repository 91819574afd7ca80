"""PatchFlow: one small flow on a map that joins all scales, behind a projection to few channels.

"PatchFlow", 2026 (arXiv 2602.05238), with the form of its public implementation in anomalib. Read
from top to bottom: projection, flow, loss, likelihood map; its scores are FastFlow's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowad_jax.flows import Clamp, Flow, patchflow_flow
from flowad_jax.flows.coupling import CLAMPS
from flowad_jax.flows.subnets import torch_bias, torch_kernel
from flowad_jax.lookup import check_choice
from flowad_jax.methods import common
from flowad_jax.methods.common import require
from flowad_jax.ops import feature_maps
from flowad_jax.types import Aux, Batch, Method, Phase, Tree

FLOW, PROJECTION = "flow", "projection"  # groups of parameters or buffers
PROJECTIONS = ("trained", "orthogonal", "pca", "pca_whitened")
TINY = {"channels": 6, "hidden": 4, "pool": 1}  # options that tests use


def build(
    channels: int = 128,
    hidden: int = 128,
    blocks: int = 1,
    projection: str = "trained",
    pool: int = 3,
    clamp: float = 2.0,
    clamp_kind: str = "tanh",
) -> Method:
    """Assembles PatchFlow; the defaults are the settings of its public implementation.

    Args:
      channels: that the features of all scales are projected to.
      hidden: channels inside a block's network.
      blocks: coupling blocks.
      projection: ``"trained"`` (published) is no part of the flow: what comes out is no likelihood
        of the features, and training could make them as small as it likes. Frozen ones are drawn
        at random (``"orthogonal"``) or found in the training features (``"pca"``,
        ``"pca_whitened"`` with variances 1): then it is the likelihood of what they keep.
      pool: side of the window over which features are averaged before they are joined; odd.
      clamp: bound alpha of the log-scales.
      clamp_kind: of the coupling blocks: ``"tanh"`` (FrEIA 0.2) or ``"tanh_ratio"`` (FrEIA since
        August 2023).

    Raises:
      UserError: an option has a value that does not exist.
    """
    check_choice("method.clamp_kind", clamp_kind, CLAMPS)
    check_choice("method.projection", projection, PROJECTIONS)
    for name, value in (("blocks", blocks), ("hidden", hidden)):
        require(value >= 1, name, value, "must be at least 1")
    require(channels >= 2, "channels", channels, "must be at least 2")
    require(pool >= 1 and pool % 2 == 1, "pool", pool, "must be odd")
    flow = patchflow_flow(channels, hidden, blocks, Clamp(clamp, clamp_kind))
    model = _PatchFlow(flow, channels, projection, pool)
    return Method(
        init=model.init,
        phases=model.phases,
        log_probs=model.log_probs,
        calibrate=common.calibrate_by_mean_likelihood,
        aggregate=common.aggregate_mean_likelihood,
        published="per_image",
        fit=model.fit if projection.startswith("pca") else None,
    )


@dataclass(frozen=True)
class _PatchFlow:
    """Projection and flow, their loss and what they say; the fields are options."""

    flow: Flow
    channels: int
    projection: str
    pool: int

    def init(self, rng: jax.Array, batch: Batch) -> dict[str, Tree]:
        """Draws parameters; of the maps only the shapes matter."""
        total = sum(x.shape[-1] for x in batch.maps)
        shape, trained = (total, self.channels), self.projection == "trained"
        fits = trained or self.channels <= total
        require(fits, "channels", self.channels, f"there are {total} to project")
        flow_key, key, bias_key = jax.random.split(rng, 3)
        x = jnp.zeros((1, *batch.maps[0].shape[1:3], self.channels))
        variables: Any = self.flow.init(flow_key, x)
        kernel = (torch_kernel if trained else jax.nn.initializers.orthogonal())(key, shape)
        bias = torch_bias(total)(bias_key, (self.channels,)) if trained else jnp.zeros(shape[1:])
        drawn = {kind: {FLOW: tree} for kind, tree in variables.items()}
        drawn["params" if trained else "buffers"][PROJECTION] = {"kernel": kernel, "bias": bias}
        return drawn

    def fit(self, variables: Mapping[str, Tree], batches: Iterable[Batch]) -> dict[str, Tree]:
        """Returns the buffers with the principal components of the normal images' features."""
        fused = jax.jit(lambda maps: (feature_maps.fused(maps, self.pool),))
        (moments,) = common.moments_of(batches, fused)
        variances, axes = np.linalg.eigh(moments.covariance[0])
        kernel = axes[:, ::-1][:, : self.channels]
        if self.projection == "pca_whitened":
            kept = variances[::-1][: self.channels]
            kernel = kernel / np.sqrt(np.maximum(kept, 1e-6 * kept[0]))
        found = {"kernel": kernel, "bias": -moments.mean[0] @ kernel}
        projection = {name: jnp.asarray(x, jnp.float32) for name, x in found.items()}
        return {**variables["buffers"], PROJECTION: projection}

    def projected(
        self, params: Mapping[str, Tree], buffers: Mapping[str, Tree], maps: Sequence[Array]
    ) -> Float[Array, "B h w D"]:
        """Few channels of all scales, at the size of the finest."""
        own = (params if self.projection == "trained" else buffers)[PROJECTION]
        return feature_maps.projected(maps, own["kernel"], self.pool) + own["bias"]

    def phases(self, buffers: Tree, batch: Batch, rng: jax.Array) -> tuple[Phase, ...]:
        """One gradient step by the negative log-likelihood per dimension, without its constant."""
        del rng
        height, width, _ = batch.maps[0].shape[1:]
        dimensions = height * width * self.channels

        def loss_fn(params: Tree, updated: Tree, minibatch: Tree) -> tuple[jax.Array, Aux]:
            x, weight = self.projected(params, buffers, minibatch["maps"]), minibatch["weight"]
            own = {"params": params[FLOW], "buffers": updated[FLOW]}
            (z, log_det), running = self.flow.apply(own, x, weight, mutable=["buffers"])
            nll = 0.5 * jnp.sum(z**2, axis=(1, 2, 3)) - log_det
            loss = jnp.sum(weight * nll) / (jnp.sum(weight) * dimensions)
            return loss, Aux({FLOW: running["buffers"]}, {})

        groups = (FLOW, PROJECTION) if self.projection == "trained" else (FLOW,)
        minibatch = {"maps": batch.maps, "weight": batch.weight}
        active = jnp.sum(batch.weight) > 0
        return (common.single_step(groups, loss_fn, minibatch, active, mutable=(FLOW,)),)

    def log_probs(
        self, variables: Mapping[str, Tree], batch: Batch
    ) -> tuple[Float[Array, "B h w"], ...]:
        """Minus half the mean square of the latents, without log-determinants."""
        x = self.projected(variables["params"], variables["buffers"], batch.maps)
        own = {kind: variables[kind][FLOW] for kind in ("params", "buffers")}
        z, _ = self.flow.apply(own, x, permute_last=False)
        return (common.minus_half_mean_square(z),)
