"""SANFlow: CFLOW-AD whose latent has a variance that a network predicts for every pixel.

Kim, Baik, Kim: "SANFlow: Semantic-Aware Normalizing Flow for Anomaly Detection", NeurIPS 2023.
Trained with synthetic anomalies. Read from top to bottom: options, steps, loss, likelihood maps.
The objective is in `ops.inverse_gamma`; the decoders and the scores are CFLOW-AD's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowad_jax.flows.variance import VarianceNet
from flowad_jax.lookup import check_choice
from flowad_jax.methods import common
from flowad_jax.methods.cflow import Decoders, aggregate, calibrate, make_decoders
from flowad_jax.methods.common import group, require
from flowad_jax.ops import arrays, inverse_gamma
from flowad_jax.ops.inverse_gamma import CROSS_ENTROPIES, Objective
from flowad_jax.ops.pixel_pooling import MASK_POOLS, VARIANCE_POOLS, anomalous_positions
from flowad_jax.types import Aux, Batch, Method, Phase, Tree

NET = "snet"  # parameter group of the network that predicts the variance
RELEASED: dict[str, Any] = {
    "log_variance_weight": 1.0,
    "stop_alpha": False,
    "cross_entropy": "double_softmax",
    "variance_floor": 0.0,
}
RELEASED_STEPS: dict[str, Any] = {
    "mask_pool": "corner",
    "variance_pool": "corner",
    "per_scale": False,
    "joint_step": False,
}
TINY = {"condition": 8, "blocks": 1}  # options that tests use


def build(
    condition: int = 512,
    blocks: int = 8,
    clamp: float = 1.9,
    clamp_kind: str = "tanh",
    permutation: str = "hard",
    prior_p: float = 11.0,
    prior_level: float = 0.1,
    anomalous_mean: float = 1.0,
    variance_clip: float = 5.0,
    log_alpha_clip: tuple[float, float] = (1e-8, 1e4),
    cross_entropy_weight: float = 0.2,
    log_variance_weight: float = 0.5,
    stop_alpha: bool = True,
    cross_entropy: str = "per_dimension",
    variance_floor: float = 1e-6,
    mask_pool: str = "area",
    mask_share: float = 0.1,
    variance_pool: str = "average",
    per_scale: bool = False,
    joint_step: bool = True,
    legacy: bool = False,
) -> Method:
    """Assembles SANFlow; the defaults are the published settings with their slips mended.

    Args:
      condition: P, size of the position code, a multiple of 4; 0 for none.
      blocks: coupling blocks per decoder.
      clamp: bound alpha of the log-scale.
      clamp_kind: ``"tanh"`` (FrEIA 0.2) or ``"tanh_ratio"`` (FrEIA since August 2023).
      permutation: ``"hard"`` channel orders or ``"soft"`` rotations.
      prior_p: p of the prior on the variance, an inverse gamma with ``alpha = p^2 / 2 - 1``,
      prior_level: and ``beta = level p^2 / 2``; the level is its mode.
      anomalous_mean: where the latent of anomalies is drawn to, in every dimension.
      variance_clip: largest variance.
      log_alpha_clip: smallest and largest alpha; ln alpha is clipped to their logarithms.
      cross_entropy_weight: of telling normal from anomalous rows by their likelihoods.
      log_variance_weight: factor of ``C E[ln v]``; 0.5 is the Gaussian's, 1 was released and
        makes the latent the narrower, the more channels a scale has.
      stop_alpha: false lets anomalous rows raise alpha through the divergence alone, without
        bound, as released.
      cross_entropy: ``"per_dimension"`` likelihoods, or ``"double_softmax"`` as released, which
        saturates.
      variance_floor: smallest variance; 0 as released, where a vanishing one makes NaN.
      mask_pool: a position is anomalous if in its cell ``mask_share`` of the pixels are
        (``"area"``), any is (``"max"``), or the top left one is (``"corner"``, released).
      mask_share: see ``mask_pool``.
      variance_pool: logarithms of alpha and beta for a position: their ``"average"`` over its
        cell, or those of its top left pixel (``"corner"``, released).
      per_scale: predicts a variance for every scale instead of one for all.
      joint_step: one gradient step per image batch on the sum over the scales; false takes one
        step per scale, each with a pass of the network, as released.
      legacy: all released forms, whatever the other options say.

    Raises:
      UserError: an option has a value that does not exist or makes no sense.
    """
    decoders = make_decoders(condition, blocks, clamp, clamp_kind, permutation)
    objective = Objective(
        prior_p=prior_p,
        prior_level=prior_level,
        anomalous_mean=anomalous_mean,
        variance_clip=variance_clip,
        log_alpha_clip=tuple(log_alpha_clip),
        cross_entropy_weight=cross_entropy_weight,
        log_variance_weight=log_variance_weight,
        stop_alpha=stop_alpha,
        cross_entropy=cross_entropy,
        variance_floor=variance_floor,
    )
    _check(objective)
    check_choice("method.mask_pool", mask_pool, MASK_POOLS)
    check_choice("method.variance_pool", variance_pool, VARIANCE_POOLS)
    demand = "a share of the pixels lies above 0 and up to 1"
    require(0 < mask_share <= 1, "mask_share", mask_share, demand)
    system = _SANFlow(
        decoders, objective, mask_pool, mask_share, variance_pool, per_scale, joint_step
    )
    if legacy:
        system = replace(system, objective=replace(objective, **RELEASED), **RELEASED_STEPS)
    return Method(
        init=system.init,
        phases=system.phases,
        log_probs=system.log_probs,
        calibrate=calibrate,
        aggregate=aggregate,
        published="transductive",
        batch_kind="mixture",
        needs_image=True,
    )


def _check(objective: Objective) -> None:
    """Refuses values for which the objective has no meaning."""
    low, high = objective.log_alpha_clip if len(objective.log_alpha_clip) == 2 else (0, 0)
    floor, clip = objective.variance_floor, objective.variance_clip
    check_choice("method.cross_entropy", objective.cross_entropy, CROSS_ENTROPIES)
    demands = {
        "prior_p": (objective.prior_p > 0 and objective.prior[0] > 0, "above 2 ** 0.5"),
        "prior_level": (objective.prior_level > 0, "above 0"),
        "anomalous_mean": (math.isfinite(objective.anomalous_mean), "a finite number"),
        "variance_clip": (clip > 0, "above 0"),
        "variance_floor": (0 <= floor < clip, f"at least 0 and below variance_clip={clip}"),
        "log_alpha_clip": (0 < low < high, "two values of alpha, the first above 0"),
        "cross_entropy_weight": (objective.cross_entropy_weight >= 0, "at least 0"),
        "log_variance_weight": (objective.log_variance_weight > 0, "above 0"),
    }
    for name, (holds, demand) in demands.items():
        require(holds, name, getattr(objective, name), f"must be {demand}")


@dataclass(frozen=True)
class _SANFlow:
    """Decoders and the network beside them; the fields are options."""

    decoders: Decoders
    objective: Objective
    mask_pool: str
    mask_share: float
    variance_pool: str
    per_scale: bool
    joint_step: bool

    def net(self, scales: int) -> VarianceNet:
        return VarianceNet(scales if self.per_scale else 1)

    def init(self, rng: jax.Array, batch: Batch) -> dict[str, Tree]:
        """Draws parameters and permutations; of maps and image only the shapes matter."""
        variables, scales = self.decoders.init(rng, batch), len(batch.maps)
        net = self.net(scales).init(jax.random.fold_in(rng, scales), batch.image[:1])
        for kind in variables:
            variables[kind][NET] = net[kind]
        return variables

    def phases(self, buffers: Tree, batch: Batch, rng: jax.Array) -> tuple[Phase, ...]:
        """One gradient step on everything, or one per scale on its decoder and the network."""
        del rng
        scales = tuple(range(len(batch.maps)))
        steps = (scales,) if self.joint_step else tuple((scale,) for scale in scales)
        return tuple(self._phase(buffers, batch, step) for step in steps)

    def _phase(self, buffers: Tree, batch: Batch, scales: Sequence[int]) -> Phase:
        net = self.net(len(batch.maps))
        pool = partial(anomalous_positions, pool=self.mask_pool, share=self.mask_share)
        minibatch = {
            "image": batch.image,
            "map": {scale: batch.maps[scale] for scale in scales},
            "anomalous": {s: pool(batch.mask, batch.maps[s].shape[1:3]) for s in scales},
            "weight": batch.weight,
        }

        def loss_fn(params: Tree, updated: Tree, minibatch: Tree) -> tuple[jax.Array, Aux]:
            net_out, running = net.apply(
                {"params": params[NET], "buffers": updated[NET]},
                minibatch["image"],
                minibatch["weight"],
                mutable=["buffers"],
            )
            variables = {"params": params, "buffers": buffers}
            results = [self._loss(variables, scale, minibatch, net_out) for scale in scales]
            losses, metrics = zip(*results, strict=True)
            mean = jax.tree.map(lambda *values: sum(values) / len(values), *metrics)
            return sum(losses[1:], losses[0]), Aux({NET: running["buffers"]}, mean)

        groups = (NET, *map(group, scales))
        active = jnp.sum(batch.weight) > 0
        return common.single_step(groups, loss_fn, minibatch, active, mutable=(NET,))

    def _loss(
        self, variables: Tree, scale: int, minibatch: Tree, net_out: Float[Array, "B H W outputs"]
    ) -> tuple[Float[Array, ""], dict[str, jax.Array]]:
        """Loss of all rows of one scale at once, and its metrics."""
        feature_map = minibatch["map"][scale]
        images, height, width, _ = feature_map.shape
        code = self.decoders.code(height, width)
        z, log_det = self.decoders.latent(
            variables,
            scale,
            arrays.fibres(feature_map),
            None if code is None else jnp.tile(code, (images, 1)),
            # Anomalous rows have a mean, the same in all channels: their order does not matter,
            # but a rotation does.
            permute_last=self.decoders.permutation == "soft",
        )
        log_alpha, log_beta = self._predicted(net_out, scale, (height, width))
        return inverse_gamma.loss(
            self.objective,
            z,
            log_det,
            log_alpha.reshape(-1),
            log_beta.reshape(-1),
            minibatch["anomalous"][scale].reshape(-1),
            jnp.repeat(minibatch["weight"], height * width),
        )

    def _predicted(
        self, net_out: Float[Array, "B H W outputs"], scale: int, size: Sequence[int]
    ) -> tuple[Float[Array, "B h w"], Float[Array, "B h w"]]:
        """The logarithms of alpha and beta of one scale, from its own head if there are several."""
        first = 2 * scale if self.per_scale else 0
        values = VARIANCE_POOLS[self.variance_pool](net_out[..., first : first + 2], size)
        return values[..., 0], values[..., 1]

    def log_probs(
        self, variables: Mapping[str, Tree], batch: Batch
    ) -> tuple[Float[Array, "B h w"], ...]:
        """Log-likelihood maps per dimension of all scales, as if all were normal."""
        own = {kind: tree[NET] for kind, tree in variables.items()}
        net_out: Any = self.net(len(batch.maps)).apply(own, batch.image)
        density = partial(inverse_gamma.log_prob_per_dim, self.objective)
        found = []
        for scale, feature_map in enumerate(batch.maps):
            given = self._predicted(net_out, scale, feature_map.shape[1:3])
            found.append(self.decoders.log_prob_map(variables, scale, feature_map, density, given))
        return tuple(found)
