"""The residual sub-network of SSNF: convolution and self-attention, stacked as one likes."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowad_jax.convolution import Conv
from flowad_jax.errors import UserError
from flowad_jax.flows.attention import SelfAttention
from flowad_jax.flows.subnets import Conv3x3, torch_bias, torch_kernel
from flowad_jax.lookup import check_choice

# The parts between the two 1x1 convolutions, in their order; the released one is "conv+attn".
LAYOUTS = ("conv", "attn", "conv+attn", "attn+conv")


def block_layouts(layout: str | Sequence[str], blocks: int) -> tuple[str, ...]:
    """Returns the layout of every block, given one for all or one for each.

    Raises:
      UserError: a layout is none of `LAYOUTS`, their number is not that of the blocks, or there
        is no block.
    """
    if blocks < 1:
        raise UserError(f"blocks={blocks}: a flow needs at least 1")
    layouts = (layout,) * blocks if isinstance(layout, str) else tuple(layout)
    if len(layouts) != blocks:
        raise UserError(f"layout names {len(layouts)} blocks, but there are {blocks}: name each")
    for name in layouts:
        check_choice("layout", name, LAYOUTS)
    return layouts


class ResidualNet(nn.Module):
    """1x1 convolution, residual parts, 1x1 convolution (Chiu and Lai, SSNF, CVPRW 2023).

    There is no activation and no normalisation: attention alone is not linear, so a layout
    without it predicts scale and shift as affine functions of the channels that it sees.

    Dropout is on where the caller gives a random key, ``apply(..., rngs={"dropout": key})``, and
    off everywhere else. One pass predicts scale and shift, so log-determinants are those of the
    map that was applied, and the same key gives the inverse of that very map.

    Attributes:
      features: number of output channels.
      hidden: channels of the residual parts.
      heads: heads of the attention; it divides ``hidden``.
      drop: probability that a channel of the convolution is dropped for one image, and that a
        weight of the attention is; what stays is scaled by ``1 / (1 - drop)``.
      layout: one of `LAYOUTS`.
      compute: dtype of the products, e.g. bfloat16; None for that of the maps.
    """

    features: int
    hidden: int = 128
    heads: int = 4
    drop: float = 0.2
    layout: str = "conv+attn"
    compute: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, cond: jax.Array | None = None) -> jax.Array:
        """Returns (B, H, W, features) from maps (B, H, W, C) and a condition (B or 1, H, W, P)."""
        if cond is not None:
            cond = jnp.broadcast_to(cond, (*x.shape[:-1], cond.shape[-1]))
            x = jnp.concatenate([x, cond], axis=-1)
        parts = {"conv": self._convolution, "attn": self._attention}
        x = self._pointwise(x, self.hidden, "reduce")
        for part in self.layout.split("+"):
            x = x + parts[part](x)
        return self._pointwise(x, self.features, "expand")

    def _convolution(self, x: jax.Array) -> jax.Array:
        x = Conv3x3(self.hidden, self.compute, name="conv")(x)
        drop_channels = nn.Dropout(self.drop, broadcast_dims=(1, 2), name="drop")
        return drop_channels(x, deterministic=not self.has_rng("dropout"))

    def _attention(self, x: jax.Array) -> jax.Array:
        return SelfAttention(self.heads, self.drop, self.compute, name="attention")(x)

    def _pointwise(self, x: jax.Array, features: int, name: str) -> jax.Array:
        conv = partial(Conv, kernel_size=(1, 1), use_bias=True, dtype=self.compute, name=name)
        bias = torch_bias(x.shape[-1])
        return conv(features, kernel_init=torch_kernel, bias_init=bias)(x).astype(x.dtype)
