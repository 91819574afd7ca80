"""U-Flow: one convolutional flow per scale, coarse to fine, each fed by the one below.

Tailanian, Pardo, Muse: "U-Flow: A U-shaped Normalizing Flow for Anomaly Detection with Unsupervised
Threshold", 2022. Read from top to bottom: flows, loss, likelihood maps; its scores are FastFlow's.
For its threshold see `flowad_jax.evaluation.a_contrario`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Float

from flowad_jax.errors import UserError
from flowad_jax.flows import Clamp, UShapedFlow, map_norm
from flowad_jax.flows.coupling import CLAMPS
from flowad_jax.flows.permutation import KINDS as PERMUTATIONS
from flowad_jax.lookup import check_choice
from flowad_jax.methods import common
from flowad_jax.methods.common import group, require
from flowad_jax.types import Batch, Method, Phase, Tree

NORM = "norm"  # the parameter group of all LayerNorms
TINY = {"steps": 1}  # options that tests use


def build(
    steps: int = 4,
    ratio: float = 1.0,
    layer_norm: bool = True,
    clamp: float = 2.0,
    clamp_kind: str = "tanh",
    permutation: str = "hard",
) -> Method:
    """Assembles U-Flow; the defaults are the settings for ResNets.

    Args:
      steps: coupling blocks per scale.
      ratio: channels inside a block's network for one of its input.
      layer_norm: whether a trained LayerNorm over channels and positions comes first (ResNets).
      clamp: bound alpha of the log-scales.
      clamp_kind: of the coupling blocks: ``"tanh"`` (FrEIA 0.2) or ``"tanh_ratio"`` (FrEIA since
        August 2023).
      permutation: ``"hard"`` channel orders or ``"soft"`` rotations.

    Raises:
      UserError: an option has a value that does not exist.
    """
    flows = make_flows(steps, ratio, layer_norm, clamp, clamp_kind, permutation)
    return Method(
        init=flows.init,
        phases=flows.phases,
        log_probs=flows.log_probs,
        calibrate=common.calibrate_by_mean_likelihood,
        aggregate=common.aggregate_mean_likelihood,
        published="per_image",
    )


def make_flows(
    steps: int, ratio: float, layer_norm: bool, clamp: float, clamp_kind: str, permutation: str
) -> Flows:
    """Checks the options, see `build`, and collects them.

    Raises:
      UserError: an option has a value that does not exist.
    """
    check_choice("method.clamp_kind", clamp_kind, CLAMPS)
    check_choice("method.permutation", permutation, PERMUTATIONS)
    require(steps >= 1, "steps", steps, "every scale needs at least 1 block")
    require(0 < ratio < math.inf, "ratio", ratio, "must be above 0")
    return Flows(steps, ratio, Clamp(clamp, clamp_kind), permutation, layer_norm)


@dataclass(frozen=True)
class Flows:
    """The flows of all scales, their loss and what they say; the fields are options."""

    steps: int
    ratio: float
    clamp: Clamp
    permutation: str
    layer_norm: bool

    def flow(self, maps: Sequence[Array]) -> UShapedFlow:
        """The flow of maps with their channels."""
        channels = tuple(x.shape[-1] for x in maps)
        return UShapedFlow(channels, self.steps, self.ratio, self.clamp, self.permutation)

    def init(self, rng: jax.Array, batch: Batch) -> dict[str, Tree]:
        """Draws parameters and channel orders; of the maps only the shapes matter."""
        sizes = [x.shape[1:3] for x in batch.maps]
        for fine, coarse in itertools.pairwise(sizes):
            if fine != (2 * coarse[0], 2 * coarse[1]):
                raise UserError(
                    f"method.name='uflow': every map needs half the height and width of the one "
                    f"before, but they have {', '.join(f'{h} x {w}' for h, w in sizes)} positions: "
                    "set data.image_size to a multiple of the coarsest of encoder.strides; with a "
                    "transformer, give one of encoder.taps and encoder.pyramid=2"
                )
        variables: dict[str, Tree] = dict(self.flow(batch.maps).init(rng, batch.maps))
        if self.layer_norm:
            norms = {
                group(scale): map_norm().init(rng, x)["params"]
                for scale, x in enumerate(batch.maps)
            }
            variables["params"] = {**variables["params"], NORM: norms}
        return variables

    def latents(
        self, variables: Mapping[str, Tree], maps: Sequence[Float[Array, "B h w C"]]
    ) -> tuple[Sequence[Float[Array, "B h w _"]], Float[Array, " B"]]:
        """Latents of all scales, and the log-determinants of the flow alone."""
        params = dict(variables["params"])
        if self.layer_norm:
            norms = params.pop(NORM)
            norm: Any = map_norm()
            maps = [norm.apply({"params": norms[group(scale)]}, x) for scale, x in enumerate(maps)]
        own = {"params": params, "buffers": variables["buffers"]}
        found: Any = self.flow(maps).apply(own, maps)
        return found

    def phases(self, buffers: Tree, batch: Batch, rng: jax.Array) -> tuple[Phase, ...]:
        """One gradient step on all flows at once."""
        del rng
        groups = (*buffers, NORM) if self.layer_norm else tuple(buffers)
        return (common.nll_step(self.latents, buffers, batch, groups),)

    def log_probs(
        self, variables: Mapping[str, Tree], batch: Batch
    ) -> tuple[Float[Array, "B h w"], ...]:
        """Minus half the mean square of the latents of every scale, without log-determinants."""
        found, _ = self.latents(variables, batch.maps)
        return tuple(common.minus_half_mean_square(z) for z in found)
