"""Fixed channel mixings that close a coupling block: a rotation (soft) or an index vector (hard).

Only one array is stored per block. The inverse of a rotation is its transpose and the inverse of
an index vector is its argsort; neither changes volume, so both have log-determinant zero.
"""

import jax
import jax.numpy as jnp
from jax import lax

KINDS = ("soft", "hard")


def sample(rng: jax.Array, channels: int, kind: str) -> jax.Array:
    """Draws a mixing of ``channels`` channels.

    Args:
      rng: a key.
      channels: C.
      kind: ``"soft"`` for a Haar-random rotation of SO(C), ``"hard"`` for a random order.

    Returns:
      (C, C) orthogonal matrix with determinant +1, or (C,) int32 indices.

    Raises:
      ValueError: another kind.
    """
    if kind == "hard":
        return jax.random.permutation(rng, channels).astype(jnp.int32)
    if kind == "soft":
        rotation = jax.random.orthogonal(rng, channels)
        # Flipping one row turns a reflection into a rotation and keeps the Haar measure.
        return rotation.at[0].multiply(jnp.linalg.det(rotation))
    raise ValueError(f"unknown permutation '{kind}', expected one of {KINDS}")


def apply(permutation: jax.Array, x: jax.Array) -> jax.Array:
    """Mixes the last axis of ``x``: ``y_i = sum_j R_ij x_j``, or ``y_i = x_{index_i}``."""
    if permutation.ndim == 1:
        return _reorder(permutation, jnp.argsort(permutation), x)
    return x @ permutation.T


def invert(permutation: jax.Array, y: jax.Array) -> jax.Array:
    """Undoes `apply`."""
    if permutation.ndim == 1:
        return _reorder(jnp.argsort(permutation), permutation, y)
    return y @ permutation


def compose(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the index vector that does at once what ``first`` and then ``second`` do."""
    return first[second]


def _reorder(index: jax.Array, inverse: jax.Array, x: jax.Array) -> jax.Array:
    """Gathers along the last axis, with a gradient that is a gather, too.

    By itself the gradient of a gather is a scatter, which adds up element by element: XLA on CPU
    takes seven times as long for it (31 against 4 ms for maps (8, 32, 32, 256)), and a GPU needs
    atomic additions. A reordering solves the linear system of its inverse; told so, JAX knows its
    transpose, and forward mode and `jax.vmap` keep working.
    """

    def take(order: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.take(values, order, axis=-1, unique_indices=True, mode="clip")

    reordered: jax.Array = lax.custom_linear_solve(
        lambda y: take(inverse, y),
        x,
        solve=lambda _, b: take(index, b),
        transpose_solve=lambda _, b: take(inverse, b),
    )
    return reordered
