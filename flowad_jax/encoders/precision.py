"""The encoder's forward pass in half precision, with feature maps in float32.

Products, which are nearly all of the work, read and write half the bytes in bfloat16, and
accelerators have units for them. Flows see float32 again. Normalising layers keep float32
variables and statistics: a variance of eight bits would scale whole channels wrongly.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from flowad_jax.encoders.taps import Apply
from flowad_jax.types import Tree

COMPUTE: dict[str, Any] = {"float32": None, "bfloat16": jnp.bfloat16}  # None: as it is


def in_precision(apply: Apply, compute: str) -> Apply:
    """Returns ``apply`` with products in ``compute``, one of `COMPUTE`, and float32 outputs.

    Unless ``compute`` is ``"float32"``, it wants variables of `rounded`.
    """
    dtype = COMPUTE[compute]
    if dtype is None:
        return apply

    def lowered(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        # Normalising layers have float32 variables, so what they return has to be rounded.
        out = call(*args, **kwargs)
        norm = isinstance(context.module, nn.BatchNorm | nn.LayerNorm | nn.GroupNorm)
        return out.astype(dtype) if norm and context.method_name == "__call__" else out

    def applied(variables: Tree, image: jax.Array) -> tuple[jax.Array, ...]:
        with nn.intercept_methods(lowered):
            maps = apply(variables, image.astype(dtype))
        return tuple(tap.astype(jnp.float32) for tap in maps)

    return applied


def rounded(variables: Tree, compute: str) -> Tree:
    """Returns an encoder's NumPy variables as `in_precision` wants them, in half of the bytes."""
    dtype = COMPUTE[compute]
    if dtype is None:
        return variables
    flat = flatten_dict(variables)
    normalising = {path[1:-1] for path in flat if path[-1] == "scale"}  # layers with one
    return unflatten_dict(
        {
            path: leaf if path[1:-1] in normalising else np.asarray(leaf).astype(dtype)
            for path, leaf in flat.items()
        }
    )
