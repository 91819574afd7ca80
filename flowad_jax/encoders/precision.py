"""The encoder's forward pass in half precision, with feature maps in float32.

Products, which are nearly all of the work, read and write half the bytes in bfloat16, and
accelerators have units for them. What a flow sees is float32 again, so flows, losses and scores
are computed as ever, on maps that differ by the encoder's rounding. Normalising layers keep
float32 variables and statistics: a variance of eight bits would scale whole channels wrongly.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from flowad_jax.types import Tree

EXPORTS = ()  # nothing in here is the name of an encoder

COMPUTE: dict[str, Any] = {"float32": None, "bfloat16": jnp.bfloat16}  # None: as it is
Apply = Callable[..., tuple[jax.Array, ...]]

_NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm)


def in_precision(apply: Apply, compute: str) -> Apply:
    """Returns ``apply`` with products in ``compute``, one of `COMPUTE`, and float32 outputs.

    Args:
      apply: ``(variables, image) -> maps``, as of ``Encoder``, of a Linen module.
      compute: ``"float32"`` changes nothing; else give it variables of `rounded`.
    """
    dtype = COMPUTE[compute]
    if dtype is None:
        return apply

    def lowered(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        """Normalising layers have float32 variables, so what they return has to be rounded."""
        out = call(*args, **kwargs)
        normalises = isinstance(context.module, _NORMS) and context.method_name == "__call__"
        return out.astype(dtype) if normalises else out

    def applied(variables: Tree, image: jax.Array) -> tuple[jax.Array, ...]:
        with nn.intercept_methods(lowered):
            maps = apply(variables, image.astype(dtype))
        return tuple(tap.astype(jnp.float32) for tap in maps)

    return applied


def rounded(variables: Tree, compute: str) -> Tree:
    """Variables as `in_precision` wants them; half of the bytes stay, on the device, too.

    Args:
      variables: NumPy arrays of an encoder.
      compute: one of `COMPUTE`.
    """
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
