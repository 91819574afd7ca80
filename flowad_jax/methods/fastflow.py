"""FastFlow: one convolutional flow per scale on maps that a trained LayerNorm has evened out.

Yu, Zheng, Wang, Li, Wu, Zhao, Wu: "FastFlow: Unsupervised Anomaly Detection and Localization via 2D
Normalizing Flows", 2021, with what the two public implementations add, which agree: the LayerNorm
and the form of the scores. Read from top to bottom: flows, loss, likelihood maps; the
scores are in `common`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from flowad_jax.flows import Clamp, NormalizedFlow, fastflow_flow
from flowad_jax.flows.coupling import CLAMPS
from flowad_jax.lookup import check_choice
from flowad_jax.methods import common
from flowad_jax.methods.common import require
from flowad_jax.types import Batch, Method, Phase, Tree

TINY = {"blocks": 2}  # options that tests use


def build(
    blocks: int = 8,
    ratio: float = 1.0,
    conv3x3_only: bool = False,
    layer_norm: bool = True,
    clamp: float = 2.0,
    clamp_kind: str = "tanh",
) -> Method:
    """Assembles FastFlow; the defaults are the settings for Wide-ResNet-50-2.

    Args:
      blocks: coupling blocks per scale.
      ratio: channels inside a block's network for one of its input (transformers: 0.16).
      conv3x3_only: whether all blocks convolve 3 x 3 (ResNet-18); if not, every second one 1 x 1.
      layer_norm: whether a trained LayerNorm over channels and positions comes first (ResNets).
      clamp: bound alpha of the log-scales.
      clamp_kind: of the coupling blocks: ``"tanh"`` (FrEIA 0.2) or ``"tanh_ratio"`` (FrEIA since
        August 2023).

    Raises:
      UserError: an option has a value that does not exist.
    """
    check_choice("method.clamp_kind", clamp_kind, CLAMPS)
    require(blocks >= 1, "blocks", blocks, "every scale needs at least 1 block")
    require(0 < ratio < math.inf, "ratio", ratio, "must be above 0")
    bound = Clamp(clamp, clamp_kind)
    chain = partial(
        fastflow_flow, blocks=blocks, ratio=ratio, conv3x3_only=conv3x3_only, clamp=bound
    )
    flows = _Flows(lambda channels: NormalizedFlow(chain(channels), layer_norm))
    return Method(
        init=flows.init,
        phases=flows.phases,
        log_probs=flows.log_probs,
        calibrate=common.calibrate_by_mean_likelihood,
        aggregate=common.aggregate_mean_likelihood,
        published="per_image",
    )


@dataclass(frozen=True)
class _Flows:
    """The flows of all scales, their loss and what they say about feature maps."""

    flow: Callable[[int], nn.Module]  # of so many channels

    def init(self, rng: jax.Array, batch: Batch) -> dict[str, Tree]:
        """Draws parameters and channel orders; of the maps only the shapes matter."""
        return common.init_flows(
            lambda key, x: self.flow(x.shape[-1]).init(key, x[:1]), rng, batch.maps
        )

    def latents(
        self, variables: Mapping[str, Tree], maps: Sequence[Float[Array, "B h w C"]]
    ) -> tuple[list[Float[Array, "B h w C"]], Float[Array, " B"]]:
        """Latents of all scales, and the sum of their log-determinants."""
        pairs: Any = [
            self.flow(x.shape[-1]).apply(common.of_scale(variables, scale), x)
            for scale, x in enumerate(maps)
        ]
        return [z for z, _ in pairs], sum(log_det for _, log_det in pairs)

    def phases(self, buffers: Tree, batch: Batch, rng: jax.Array) -> tuple[Phase, ...]:
        """One gradient step on all flows at once."""
        del rng
        return (common.nll_step(self.latents, buffers, batch),)

    def log_probs(
        self, variables: Mapping[str, Tree], batch: Batch
    ) -> tuple[Float[Array, "B h w"], ...]:
        """Minus half the mean square of the latents of every scale, without log-determinants."""
        found, _ = self.latents(variables, batch.maps)
        return tuple(common.minus_half_mean_square(z) for z in found)
