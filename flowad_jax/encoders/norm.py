"""Normalisation behind every tap: positions of mean 0 and variance 1 over their channels.

Transformers end with a LayerNorm; the maps of a convolutional network have any scale, which flows
without normalising layers of their own, such as SSNF's, do not survive. Yu et al. (FastFlow, 2021)
normalise residual networks in the same place.
"""

from collections.abc import Callable

import jax

EXPORTS = ()  # nothing in here is the name of an encoder

_EPSILON = 1e-6  # as in the transformers
Apply = Callable[..., tuple[jax.Array, ...]]


def normalised(apply: Apply) -> Apply:
    """Returns ``apply`` with outputs (B, h, w, C) that are normalised over their channels."""
    return lambda *inputs: tuple(
        jax.nn.standardize(tap, axis=-1, epsilon=_EPSILON) for tap in apply(*inputs)
    )
