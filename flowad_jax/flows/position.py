"""The 2-D sinusoidal position code that conditions a flow on where a feature comes from."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flowad_jax.errors import UserError


def position_code(features: int, height: int, width: int) -> np.ndarray:
    """Computes the code of every position of a map.

    Channels 0 to P/2 - 1 hold sine and cosine of the column at P/4 frequencies, the rest those
    of the row, interleaved as (sin, cos). Positions are indices of the feature map
    (CFLOW-AD, section 3.2; after Vaswani et al. 2017, section 3.5).

    Args:
      features: P, a multiple of 4.
      height: rows of the map.
      width: columns of the map.

    Returns:
      (height, width, P) float32.

    Raises:
      UserError: P is not a positive multiple of 4.
    """
    if features <= 0 or features % 4:
        raise UserError(f"condition={features}: a position code needs a positive multiple of 4")
    half = features // 2
    frequency = np.exp(np.arange(0, half, 2) * (-math.log(10_000.0) / half))
    columns = _sin_cos(np.arange(width), frequency)[None].repeat(height, axis=0)
    rows = _sin_cos(np.arange(height), frequency)[:, None].repeat(width, axis=1)
    return np.concatenate([columns, rows], axis=-1).astype(np.float32)


def _sin_cos(position: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    angle = position[:, None] * frequency
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(len(position), -1)


class PositionalEncoding(nn.Module):
    """Position codes for a batch of feature maps; it has no parameters.

    Attributes:
      features: P, a multiple of 4.
    """

    features: int

    def __call__(self, feature_map: jax.Array) -> jax.Array:
        """Returns the condition (B, h, w, P) of a map (B, h, w, C)."""
        batch, height, width, _ = feature_map.shape
        code = jnp.asarray(position_code(self.features, height, width))
        return jnp.broadcast_to(code, (batch, *code.shape))
