"""A flow per scale, each fed by the coarser one below it: the network of U-Flow."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowad_jax.flows.coupling import Clamp, CouplingBlock
from flowad_jax.flows.flow import Flow
from flowad_jax.flows.fusion import Maps
from flowad_jax.flows.subnets import PlainConvNet


class UShapedFlow(nn.Module):
    """From coarse to fine: half of a scale's latent goes up, into the channels of the next finer.

    Going up is exact: four channels of a position become the channel of a square of four positions
    (Tailanian, Pardo, Muse: "U-Flow", 2022, section 3.2). Parameters fall into the groups
    ``scale0``, ``scale1``, ...

    Attributes:
      channels: C_l of every scale, fine to coarse, each half as high and wide as the one before.
      steps: coupling blocks of every scale; their nets convolve 3 x 3 and 1 x 1 in turn.
      ratio: channels inside a net for one of its input.
      clamp: bound on the log-scale.
      permutation: of the blocks, ``"hard"`` or ``"soft"``.
    """

    channels: tuple[int, ...]
    steps: int = 4
    ratio: float = 1.0
    clamp: Clamp = Clamp(2.0)
    permutation: str = "hard"

    def setup(self) -> None:
        """Creates the flows."""
        lifted = 0
        for scale, channels in reversed([*enumerate(self.channels)]):
            total = channels + lifted
            nets = (
                partial(PlainConvNet, size=1 if step % 2 else 3, ratio=self.ratio)
                for step in range(self.steps)
            )
            chain = (CouplingBlock(total, net, self.clamp, self.permutation) for net in nets)
            setattr(self, f"scale{scale}", Flow(tuple(chain)))
            lifted = rising(total) // 4

    @property
    def scales(self) -> list[Flow]:
        """The flows, fine to coarse."""
        return [getattr(self, f"scale{scale}") for scale in range(len(self.channels))]

    def __call__(self, maps: Sequence[Array]) -> tuple[Maps, Float[Array, " B"]]:
        """Maps feature maps (B, h_l, w_l, C_l) to latents, fine to coarse, and log_det.

        All latents together have as many values as the maps, but other numbers of channels.
        """
        *others, last = zip(self.scales, maps, strict=True)
        z, log_det = last[0](last[1])
        latents = []
        for flow, x in reversed(others):
            count = rising(z.shape[-1])
            latents.append(z[..., count:])
            z, more = flow(jnp.concatenate([x, spread(z[..., :count])], axis=-1))
            log_det = log_det + more
        return (z, *reversed(latents)), log_det

    def inverse(self, latents: Sequence[Array]) -> tuple[Maps, Float[Array, " B"]]:
        """Maps ``latents -> (feature maps, log_det)``, the log-determinant of the inverse."""
        z, maps, log_det = latents[0], [], jnp.zeros(len(latents[0]), latents[0].dtype)
        for scale, flow in enumerate(self.scales):
            x, more = flow.inverse(z)
            log_det = log_det + more
            maps.append(x[..., : self.channels[scale]])
            if scale + 1 < len(latents):
                up = gathered(x[..., self.channels[scale] :])
                z = jnp.concatenate([up, latents[scale + 1]], axis=-1)
        return tuple(maps), log_det


def rising(channels: int) -> int:
    """Channels of a scale that go up: half of them, as a multiple of 4."""
    return 4 * (channels // 8)


def spread(x: Float[Array, "B h w 4*C"]) -> Float[Array, "B 2*h 2*w C"]:
    """Lays four channels in a row out as a square of positions, row by row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, channels // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


def gathered(x: Float[Array, "B 2*h 2*w C"]) -> Float[Array, "B h w 4*C"]:
    """Undoes `spread`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(batch, height // 2, width // 2, 4 * channels)
