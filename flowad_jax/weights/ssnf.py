"""State dicts of the SSNF reference become variables of our flow, and back."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowad_jax.errors import UserError, printable
from flowad_jax.weights import freia

Flat = Mapping[str, np.ndarray]

_PREFIX = "flow_model."
_LAYERS = {"subnet.gate1": "reduce", "subnet.conv.conv": "conv", "subnet.gate2": "expand"}
_PROJECTION = re.compile(r"module_list\.(\d{1,4})\.subnet\.attn\.in_proj\.(.+)")
# PyTorch renamed the two tensors of a weight-normalised layer; both spellings occur.
_SCALE = ("weight_g", "parametrizations.weight.original0")
_DIRECTION = ("weight_v", "parametrizations.weight.original1")


def flow(state_dict: Flat) -> dict[str, dict]:
    """Converts the flow of one trained category.

    Args:
      state_dict: tensors of the reference's checkpoint, with or without ``flow_model.`` in front.

    Returns:
      ``{"params": ..., "constants": ...}`` of `flowad_jax.flows.ssnf_flow` with its default
      layout.

    Raises:
      UserError: a tensor is missing or unknown.
    """
    blocks: dict[str, np.ndarray] = {}
    projections: dict[str, dict[str, np.ndarray]] = {}
    for key, value in state_dict.items():
        key = key.removeprefix(_PREFIX)
        match = _PROJECTION.fullmatch(key)
        if match is None:
            blocks[key] = value
        else:
            projections.setdefault(f"blocks_{match[1]}", {})[match[2]] = np.asarray(value)
    variables = freia.chain(blocks, _LAYERS)
    for name, params in variables["params"].items():
        params["net"]["attention"] = _attention(name, projections.pop(name, {}))
    if projections:
        raise UserError(f"an SSNF flow has attention in unknown blocks: {', '.join(projections)}")
    return variables


def state_dict(variables: Mapping[str, Any], indices: bool = False) -> dict[str, np.ndarray]:
    """The way back of `flow`; see `freia.state_dict`."""
    found = freia.state_dict(variables, _LAYERS, 3, indices)
    for block, params in variables["params"].items():
        attention, index = params["net"]["attention"], block.removeprefix("blocks_")
        prefix = f"module_list.{index}.subnet.attn.in_proj."
        found[prefix + _SCALE[0]] = attention["scale"].reshape(-1, 1)
        found[prefix + _DIRECTION[0]] = attention["direction"].T
    return {_PREFIX + key: tensor for key, tensor in found.items()}


def _attention(block: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The projection to keys, values and queries, whose rows become columns."""
    scale, direction = (_take(block, tensors, names) for names in (_SCALE, _DIRECTION))
    if tensors:
        unknown = ", ".join(map(printable, tensors))
        raise UserError(f"{block} of an SSNF flow has unknown tensors: {unknown}")
    return {"scale": scale.ravel(), "direction": direction.T}


def _take(block: str, tensors: dict[str, np.ndarray], names: tuple[str, str]) -> np.ndarray:
    for name in names:
        if name in tensors:
            return tensors.pop(name)
    raise UserError(f"{block} of an SSNF flow has no tensor '{names[0]}' for its attention")
