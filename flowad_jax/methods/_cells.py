"""What pixels say about the position of a feature map in whose cell they lie, for SANFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from flowad_jax import ops
from flowad_jax.errors import UserError
from flowad_jax.lookup import check_choice

MASK_POOLS = ("area", "max", "corner")
VARIANCE_POOLS = ("average", "corner")


def make_cells(mask_pool: str, mask_share: float, variance_pool: str, per_scale: bool) -> Cells:
    """Checks and collects the options; see `flowad_jax.methods.sanflow.build`.

    Raises:
      UserError: an option has a value that does not exist or makes no sense.
    """
    check_choice("method.mask_pool", mask_pool, MASK_POOLS)
    check_choice("method.variance_pool", variance_pool, VARIANCE_POOLS)
    if not 0 < mask_share <= 1:
        raise UserError(
            f"method.mask_share={mask_share}: a share of the pixels lies above 0 and up to 1"
        )
    return Cells(mask_pool, mask_share, variance_pool, per_scale)


@dataclass(frozen=True)
class Cells:
    """Brings masks and predictions from the pixels of an image to the positions of a map.

    Attributes:
      mask_pool: one of `MASK_POOLS`.
      mask_share: share of its pixels from which a cell is anomalous under ``"area"``.
      variance_pool: one of `VARIANCE_POOLS`.
      per_scale: whether every scale has predictions of its own.
    """

    mask_pool: str
    mask_share: float
    variance_pool: str
    per_scale: bool

    def anomalous(self, mask: jax.Array, size: Sequence[int]) -> jax.Array:
        """Positions (B, h, w) that count as anomalous in a mask (B, H, W), both bool."""
        if self.mask_pool == "corner":
            return corners(mask, size)
        share = ops.adaptive_average_pool(mask[..., None].astype(jnp.float32), size)[..., 0]
        # Shares are rounded sums; the weight of one pixel is far above these margins.
        least = 1e-7 if self.mask_pool == "max" else self.mask_share - 1e-6
        return share > least

    def spread(self, net_out: jax.Array, scale: int, size: Sequence[int]) -> list[jax.Array]:
        """The logarithms of alpha and beta, each (B, h, w), of one scale.

        Args:
          net_out: (B, H, W, 2 * heads) of `flowad_jax.flows.variance.VarianceNet`.
          scale: index of the scale, which is that of the head if there are several.
          size: (h, w) of the scale.
        """
        head = scale if self.per_scale else 0
        pixels = net_out[..., 2 * head : 2 * head + 2]
        pool = corners if self.variance_pool == "corner" else ops.adaptive_average_pool
        values = pool(pixels, size)
        return [values[..., 0], values[..., 1]]


def corners(x: jax.Array, size: Sequence[int]) -> jax.Array:
    """Takes from (B, H, W, ...) the top left pixel of every cell: (B, h, w, ...)."""
    rows, columns = (
        np.arange(goal) * source // goal for source, goal in zip(x.shape[1:3], size, strict=True)
    )
    return x[:, rows][:, :, columns]
