"""What pixels say about the position of a feature map in whose cell they lie, for SANFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped

from flowad_jax.ops import arrays

MASK_POOLS = ("area", "max", "corner")


def anomalous_positions(
    mask: Bool[Array, "B H W"], size: Sequence[int], pool: str, share: float
) -> Bool[Array, "B h w"]:
    """Positions that count as anomalous in a mask; see ``mask_pool`` of SANFlow's options.

    Args:
      mask: true on defects.
      size: (h, w).
      pool: one of `MASK_POOLS`.
      share: share of its pixels from which a cell is anomalous under ``"area"``.
    """
    if pool == "corner":
        return corners(mask, size)
    found = arrays.adaptive_average_pool(mask[..., None].astype(jnp.float32), size)[..., 0]
    # Shares are rounded sums; the weight of one pixel is far above these margins.
    return found > (1e-7 if pool == "max" else share - 1e-6)


def corners(x: Shaped[Array, "B H W *C"], size: Sequence[int]) -> Shaped[Array, "B h w *C"]:
    """Takes the top left pixel of every cell."""
    rows, columns = (
        np.arange(goal) * source // goal for source, goal in zip(x.shape[1:3], size, strict=True)
    )
    return x[:, rows][:, :, columns]


VARIANCE_POOLS: dict[str, Callable[..., Any]] = {
    "average": arrays.adaptive_average_pool,
    "corner": corners,
}
