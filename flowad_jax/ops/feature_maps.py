"""One map of all scales: what methods use that look at a position's features together."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowad_jax.ops import arrays


def fused(maps: Sequence[Float[Array, "B _ _ _"]], pool: int = 3) -> Float[Array, "B h w C"]:
    """Joins maps to one at the size of the first, the finest: averaged, resized, concatenated.

    Args:
      maps: of several scales.
      pool: side of the window of the average, odd, with zeros beyond the border, which count.
    """
    target = maps[0].shape[1:3]
    return jnp.concatenate(
        [arrays.resize_bilinear(_averaged(x, pool), target) for x in maps], axis=-1
    )


def projected(
    maps: Sequence[Float[Array, "B _ _ _"]], kernel: Float[Array, "C D"], pool: int = 3
) -> Float[Array, "B h w D"]:
    """What ``fused(maps, pool) @ kernel`` is, at a fraction of its memory and work.

    Averaging and resizing work on each channel alone, so each map can be projected first.
    """
    target, parts, start = maps[0].shape[1:3], [], 0
    for x in maps:
        few = x @ kernel[start : start + x.shape[-1]]
        parts.append(arrays.resize_bilinear(_averaged(few, pool), target))
        start += x.shape[-1]
    return sum(parts[1:], parts[0])


def _averaged(x: jax.Array, pool: int) -> jax.Array:
    """Mean of windows as two products, one per axis, which every runtime has."""
    rows, columns = (
        jnp.asarray(arrays.window_matrix(size, pool), x.dtype) for size in x.shape[1:3]
    )
    return jnp.einsum("Hh,Ww,bhwc->bHWc", rows, columns, x, precision="highest")
