"""Attention over many tokens with a bound on memory."""

from collections.abc import Callable

import jax
from jax import lax

EXPORTS = ()  # nothing in here is the name of an encoder
ENTRIES = 2**25  # of the attention matrix at a time: 134 MB


def in_groups(attend: Callable[[jax.Array], jax.Array], q: jax.Array) -> jax.Array:
    """Attends for as many of the queries (B, N, heads, d) at once as memory is meant for.

    Args:
      attend: maps queries (B, n, heads, d) to results of the same shape.
      q: all queries; each looks at N tokens.
    """
    batch, tokens, heads, _ = q.shape
    most = max(1, ENTRIES // (batch * heads * tokens))
    rows = next(rows for rows in range(min(most, tokens), 0, -1) if tokens % rows == 0)
    if rows == tokens:
        return attend(q)

    def step(index: int, x: jax.Array) -> jax.Array:
        group = lax.dynamic_slice_in_dim(x, index * rows, rows, axis=1)
        return lax.dynamic_update_slice_in_dim(x, attend(group), index * rows, axis=1)

    # Results replace queries: XLA would make the empty results of all blocks at the very start.
    return lax.fori_loop(0, tokens // rows, step, q)
