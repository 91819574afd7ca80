"""The residual sub-network of SSNF: convolution and self-attention, stacked as one likes."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowad_jax.errors import UserError
from flowad_jax.flows.subnets import SameConv, torch_bias, torch_kernel
from flowad_jax.lookup import check_choice
from flowad_jax.ops.convolution import Conv

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


def sequence_code(features: int, length: int) -> Float[np.ndarray, "length features"]:
    """Computes the 1-D sinusoidal code of every position of a sequence, in float64.

    With ``n = features // 2`` rates ``r_i = 10000 ** (-i / (n - 1))``, position p has the sines
    ``sin(p r_i)`` first, then the cosines, and a zero if the number of features is odd (after
    Vaswani et al. 2017, section 3.5, whose sines and cosines are interleaved).
    """
    count = features // 2
    rate = np.exp(np.arange(count) * (-math.log(10_000.0) / max(1, count - 1)))
    angle = np.arange(length)[:, None] * rate
    return np.concatenate([np.sin(angle), np.cos(angle), np.zeros((length, features % 2))], axis=-1)


class SelfAttention(nn.Module):
    """Multi-head attention of every position to all others (Vaswani et al. 2017, section 3.2).

    The positions, row by row, carry a `sequence_code`, which reaches keys, values and queries; one
    weight-normalised projection without bias yields the three (Salimans and Kingma 2016: columns
    are ``scale_r * direction_r / |direction_r|``). There is no projection behind the heads.
    Memory: the weights of one pass are (B, heads, h * w, h * w).

    Attributes:
      heads: number of heads; it divides the number of channels.
      drop: probability that a weight is set to zero, see `ResidualNet`.
      compute: dtype of the products, e.g. bfloat16; None for that of the maps.
    """

    heads: int
    drop: float = 0.0
    compute: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Attends, and returns the dtype of the maps."""
        batch, height, width, channels = x.shape
        rows = x.reshape(batch, height * width, channels)
        rows = rows + jnp.asarray(sequence_code(channels, height * width), x.dtype)
        direction = self.param("direction", torch_kernel, (channels, 3 * channels))
        length = jnp.linalg.norm(direction, axis=0)
        scale = self.param("scale", lambda _: length)  # starts as in PyTorch
        dtype = self.compute or x.dtype
        projected = rows.astype(dtype) @ (direction * (scale / length)).astype(dtype)
        heads = projected.reshape(batch, height * width, 3, self.heads, channels // self.heads)
        key, value, query = (heads[:, :, part] for part in range(3))
        dropout: dict[str, Any] = {"deterministic": True}
        if self.drop > 0 and self.has_rng("dropout"):
            # Each image, head and pair of positions has its own draw.
            rng = self.make_rng("dropout")
            dropout = {"dropout_rng": rng, "dropout_rate": self.drop, "broadcast_dropout": False}
        full = self.compute is not None
        out = nn.dot_product_attention(query, key, value, force_fp32_for_softmax=full, **dropout)
        return out.reshape(x.shape).astype(x.dtype)


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
    def __call__(
        self, x: Float[Array, "B H W C"], cond: Float[Array, "_ H W P"] | None = None
    ) -> Float[Array, "B H W features"]:
        """Predicts from maps and a condition that is one for all images or one for each."""
        if cond is not None:
            cond = jnp.broadcast_to(cond, (*x.shape[:-1], cond.shape[-1]))
            x = jnp.concatenate([x, cond], axis=-1)
        parts = {"conv": self._convolution, "attn": self._attention}
        x = self._pointwise(x, self.hidden, "reduce")
        for part in self.layout.split("+"):
            x = x + parts[part](x)
        return self._pointwise(x, self.features, "expand")

    def _convolution(self, x: Array) -> Array:
        x = SameConv(self.hidden, self.compute, name="conv")(x)
        drop_channels = nn.Dropout(self.drop, broadcast_dims=(1, 2), name="drop")
        return drop_channels(x, deterministic=not self.has_rng("dropout"))

    def _attention(self, x: Array) -> Array:
        return SelfAttention(self.heads, self.drop, self.compute, name="attention")(x)

    def _pointwise(self, x: Array, features: int, name: str) -> Array:
        conv = partial(Conv, kernel_size=(1, 1), use_bias=True, dtype=self.compute, name=name)
        bias = torch_bias(x.shape[-1])
        return conv(features, kernel_init=torch_kernel, bias_init=bias)(x).astype(x.dtype)
