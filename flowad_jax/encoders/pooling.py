"""Pooling behind every tap: half the positions, a quarter of the work for what learns from them.

MSFlow (Zhou et al., IEEE TNNLS 2024) averages its feature maps before the flows see them. The
conventions are PyTorch's: windows of 3x3 at stride 2 with a border of one, an average always
divides by nine, as if the border were zeros, and a maximum never takes the border.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from flowad_jax.errors import UserError
from flowad_jax.lookup import nearest

EXPORTS = ()  # nothing in here is the name of an encoder

_WINDOWS: dict[str, Any] = {
    "window_shape": (3, 3),
    "strides": (2, 2),
    "padding": ((1, 1), (1, 1)),
}
POOLS: dict[str, Callable[[jax.Array], jax.Array] | None] = {
    "none": None,
    "avg": functools.partial(nn.avg_pool, **_WINDOWS, count_include_pad=True),
    "max": functools.partial(nn.max_pool, **_WINDOWS),
}
Apply = Callable[..., tuple[jax.Array, ...]]


def pooled(apply: Apply, pool: str) -> Apply:
    """Returns ``apply`` with pooled outputs: (B, h, w, C) become (B, ceil(h/2), ceil(w/2), C).

    Args:
      apply: ``(variables, image) -> maps``, as of ``Encoder``.
      pool: ``"none"``, ``"avg"`` or ``"max"``.

    Raises:
      UserError: an unknown kind of pooling.
    """
    if pool not in POOLS:
        raise UserError(f"encoder.pool='{pool}' is unknown: {nearest(str(pool), POOLS)}")
    window = POOLS[pool]
    if window is None:
        return apply
    return lambda variables, image: tuple(window(tap) for tap in apply(variables, image))
