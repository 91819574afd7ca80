"""A flow per scale, then one over all scales: the network of MSFlow."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowad_jax.flows.coupling import Clamp, CouplingBlock
from flowad_jax.flows.flow import Flow
from flowad_jax.flows.fusion import FusionFlow, Maps
from flowad_jax.flows.position import position_code
from flowad_jax.flows.subnets import ConvNet


class MultiScaleFlow(nn.Module):
    """Parallel flows that know positions, joined by a fusion flow (MSFlow, figure 2).

    Its parameters fall into the groups ``scale0``, ``scale1``, ... and ``fusion``.

    Attributes:
      channels: C_l of every scale, the map of the last scale being the smallest.
      blocks: coupling blocks of every scale.
      condition: P, size of the position code that all blocks see.
      clamp: bound on the log-scale of the coupling blocks; the fusion flow has the same alpha.
      compute: dtype of the convolutions; log-determinants stay in the dtype of the maps.
    """

    channels: tuple[int, ...]
    blocks: tuple[int, ...] = (2, 5, 8)
    condition: int = 64
    clamp: Clamp = Clamp()
    compute: jnp.dtype | None = None

    def setup(self) -> None:
        """Creates the flows."""
        subnet = partial(ConvNet, compute=self.compute)
        for scale, (channels, blocks) in enumerate(zip(self.channels, self.blocks, strict=True)):
            chain = (CouplingBlock(channels, subnet, self.clamp, "hard") for _ in range(blocks))
            setattr(self, f"scale{scale}", Flow(tuple(chain)))
        self.fusion = FusionFlow(self.channels, self.clamp.alpha, self.compute)

    @property
    def scales(self) -> list[Flow]:
        """The parallel flows."""
        return [getattr(self, f"scale{scale}") for scale in range(len(self.channels))]

    def code(self, x: Float[Array, "B h w C"]) -> Float[Array, "1 h w P"]:
        """Returns the condition of a map, the same for all images."""
        return jnp.asarray(position_code(self.condition, *x.shape[1:3]))[None]

    def __call__(self, maps: Sequence[Array]) -> tuple[Maps, Float[Array, " B"]]:
        """Maps feature maps (B, h_l, w_l, C_l) to latents of the same shapes and log_det."""
        # The order that closes a chain and the one that opens the fusion come to one.
        pairs = [
            flow(x, self.code(x), permute_last=False)
            for flow, x in zip(self.scales, maps, strict=True)
        ]
        latents, log_dets = zip(*pairs, strict=True)
        fused, log_det = self.fusion(latents, [flow.blocks[-1].mixing for flow in self.scales])
        return fused, log_det + sum(log_dets)

    def inverse(self, latents: Sequence[Array]) -> tuple[Maps, Float[Array, " B"]]:
        """Maps ``latents -> (feature maps, log_det)``, the log-determinant of the inverse."""
        split, log_det = self.fusion.inverse(latents)
        pairs = [flow.inverse(z, self.code(z)) for flow, z in zip(self.scales, split, strict=True)]
        maps, log_dets = zip(*pairs, strict=True)
        return maps, log_det + sum(log_dets)
