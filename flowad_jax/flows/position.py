"""The 2-D sinusoidal position code that conditions a flow on where a feature comes from."""

import math

import numpy as np
from jaxtyping import Float

from flowad_jax.errors import UserError


def position_code(features: int, height: int, width: int) -> Float[np.ndarray, "h w P"]:
    """Computes the code of every position of a map.

    Channels 0 to P/2 - 1 hold sine and cosine of the column at P/4 frequencies, the rest those
    of the row, interleaved as (sin, cos). Positions are indices of the feature map
    (CFLOW-AD, section 3.2; after Vaswani et al. 2017, section 3.5).

    Raises:
      UserError: P = ``features`` is not a positive multiple of 4.
    """
    if features <= 0 or features % 4:
        raise UserError(f"condition={features}: a position code needs a positive multiple of 4")
    half = features // 2
    frequency = np.exp(np.arange(0, half, 2) * (-math.log(10_000.0) / half))

    def sin_cos(size: int) -> np.ndarray:
        angle = np.arange(size)[:, None] * frequency
        return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(size, -1)

    columns = sin_cos(width)[None].repeat(height, axis=0)
    rows = sin_cos(height)[:, None].repeat(width, axis=1)
    return np.concatenate([columns, rows], axis=-1).astype(np.float32)
