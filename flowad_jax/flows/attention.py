"""Self-attention over the positions of a feature map, as in the sub-network of SSNF."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flowad_jax.flows.subnets import torch_kernel


def sequence_code(features: int, length: int) -> np.ndarray:
    """Computes the 1-D sinusoidal code of every position of a sequence.

    With ``n = features // 2`` rates ``r_i = 10000 ** (-i / (n - 1))``, position p has the sines
    ``sin(p r_i)`` first, then the cosines, and a zero if the number of features is odd (after
    Vaswani et al. 2017, section 3.5, whose sines and cosines are interleaved).

    Args:
      features: size of the code.
      length: number of positions.

    Returns:
      (length, features) float64.
    """
    count = features // 2
    rate = np.exp(np.arange(count) * (-math.log(10_000.0) / max(1, count - 1)))
    angle = np.arange(length)[:, None] * rate
    return np.concatenate([np.sin(angle), np.cos(angle), np.zeros((length, features % 2))], axis=-1)


class SelfAttention(nn.Module):
    """Multi-head attention of every position to all others (Vaswani et al. 2017, section 3.2).

    The positions, row by row, carry a `sequence_code`, which reaches keys, values and queries; one
    weight-normalised projection without bias yields the three. There is no projection behind the
    heads. Memory: the weights of one pass are (B, heads, h * w, h * w).

    Given a random key ``dropout``, weights are dropped; see `ResidualNet`.

    Attributes:
      heads: number of heads; it divides the number of channels.
      drop: probability that a weight is set to zero.
      compute: dtype of the products, e.g. bfloat16; None for that of the maps.
    """

    heads: int
    drop: float = 0.0
    compute: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, h, w, C) to the same shape and dtype."""
        batch, height, width, channels = x.shape
        rows = x.reshape(batch, height * width, channels)
        rows = rows + jnp.asarray(sequence_code(channels, height * width), x.dtype)
        dtype = self.compute or x.dtype
        projected = rows.astype(dtype) @ self._weights(channels).astype(dtype)
        heads = projected.reshape(batch, height * width, 3, self.heads, channels // self.heads)
        key, value, query = (heads[:, :, part] for part in range(3))
        out = nn.dot_product_attention(
            query,
            key,
            value,
            force_fp32_for_softmax=self.compute is not None,
            **self._dropout(),
        )
        return out.reshape(x.shape).astype(x.dtype)

    def _weights(self, channels: int) -> jax.Array:
        """(C, 3C) with columns ``scale_r * direction_r / |direction_r|`` (Salimans and Kingma).

        The scales start as the lengths of the directions, as in PyTorch.
        """
        direction = self.param("direction", torch_kernel, (channels, 3 * channels))
        length = jnp.linalg.norm(direction, axis=0)
        scale = self.param("scale", lambda _: length)
        return direction * (scale / length)

    def _dropout(self) -> dict[str, Any]:
        if self.drop == 0 or not self.has_rng("dropout"):
            return {"deterministic": True}
        # Each image, head and pair of positions has its own draw.
        rng = self.make_rng("dropout")
        return {"dropout_rng": rng, "dropout_rate": self.drop, "broadcast_dropout": False}
