"""Fixed channel mixings that close a coupling block: a rotation (soft) or an index vector (hard).

Only one array is stored per block. The inverse of a rotation is its transpose and the inverse of
an index vector is its argsort; neither changes volume, so both have log-determinant zero.
"""

import jax
import jax.numpy as jnp

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
        return jnp.take(x, permutation, axis=-1)
    return x @ permutation.T


def invert(permutation: jax.Array, y: jax.Array) -> jax.Array:
    """Undoes `apply`."""
    if permutation.ndim == 1:
        return jnp.take(y, jnp.argsort(permutation), axis=-1)
    return y @ permutation
