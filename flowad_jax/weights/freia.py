"""State dicts of FrEIA's all-in-one blocks become variables of our flows.

FrEIA stores every permutation twice, as a matrix and as its inverse; we keep it once, and as an
index vector where it only reorders channels.
"""

import re
from collections.abc import Mapping

import numpy as np

from flowad_jax.errors import UserError

Flat = Mapping[str, np.ndarray]

_KEY = re.compile(r"module_list\.(\d+)\.(.+)")
# Layers of the sub-networks, theirs and ours.
MLP = {"subnet.0": "hidden", "subnet.2": "out"}
CONV_NET = {"subnet.conv1": "hidden", "subnet.ln": "norm", "subnet.conv2": "out"}


def chain(state_dict: Flat, layers: Mapping[str, str] = MLP) -> dict[str, dict]:
    """Converts a chain of blocks, such as a decoder of CFLOW-AD or a parallel flow of MSFlow.

    Args:
      state_dict: ``module_list.{k}.*`` tensors of a FrEIA ``SequenceINN``.
      layers: names of the sub-network's layers, theirs to ours.

    Returns:
      ``{"params": ..., "constants": ...}`` of a `flowad_jax.flows.Flow`.

    Raises:
      UserError: a key is missing or unknown.
    """
    blocks: dict[int, dict[str, np.ndarray]] = {}
    for key, value in state_dict.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise UserError(f"unknown key '{key}' in a FrEIA chain")
        blocks.setdefault(int(match[1]), {})[match[2]] = np.asarray(value)
    params, constants = {}, {}
    for index, tensors in sorted(blocks.items()):
        name = f"blocks_{index}"
        params[name], constants[name] = block(tensors, layers)
    return {"params": params, "constants": constants}


def block(tensors: Flat, layers: Mapping[str, str] = MLP) -> tuple[dict, dict]:
    """Converts one block into its (params, constants); see `chain` for ``layers``."""
    tensors = dict(tensors)
    try:
        params: dict = {
            "global_scale": tensors.pop("global_scale").ravel(),
            "global_offset": tensors.pop("global_offset").ravel(),
            "net": {ours: layer(tensors, theirs) for theirs, ours in layers.items()},
        }
        matrix = tensors.pop("w_perm")
    except KeyError as missing:
        raise UserError(f"a FrEIA block has no tensor {missing}") from None
    tensors.pop("w_perm_inv", None)
    if tensors:
        raise UserError(f"a FrEIA block has unknown tensors: {', '.join(sorted(tensors))}")
    return params, {"permutation": permutation(matrix)}


def layer(tensors: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Takes weight and bias of a linear layer, a convolution or a LayerNorm out of ``tensors``.

    Raises:
      KeyError: one of them is missing.
    """
    weight, bias = tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.bias")
    if weight.ndim == 1:
        return {"scale": weight, "bias": bias}
    # The spatial axes, if any, first, then inputs, then outputs.
    return {"kernel": np.moveaxis(weight, (0, 1), (-1, -2)), "bias": bias}


def permutation(stored: np.ndarray) -> np.ndarray:
    """Returns indices (C,) for a one-hot matrix or an index vector, else the matrix (C, C)."""
    if stored.ndim == 1:
        return stored.astype(np.int32)
    matrix = stored.reshape(stored.shape[:2])
    one_hot = np.all((matrix == 0) | (matrix == 1)) and np.all(matrix.sum(1) == 1)
    return matrix.argmax(1).astype(np.int32) if one_hot else matrix
