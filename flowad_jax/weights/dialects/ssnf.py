"""The authors' code of SSNF: the state dict of one flow, whose blocks have attention."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.weights import freia
from flowad_jax.weights.detectors import Dialect, TorchDetector
from flowad_jax.weights.state_dicts import Flat, as_state_dict, refuse_rest, size

_PREFIX = "flow_model."
_LAYERS = {"subnet.gate1": "reduce", "subnet.conv.conv": "conv", "subnet.gate2": "expand"}
_PROJECTION = re.compile(r"module_list\.(\d{1,4})\.subnet\.attn\.in_proj\.(.+)")
# PyTorch renamed the two tensors of a weight-normalised layer; both spellings occur.
_SCALE = ("weight_g", "parametrizations.weight.original0")
_DIRECTION = ("weight_v", "parametrizations.weight.original1")


def read(content: Mapping[str, Any]) -> TorchDetector:
    """Converts a checkpoint."""
    tensors = as_state_dict(content, "checkpoint")
    plain = {key.removeprefix(_PREFIX): value for key, value in tensors.items()}
    shape = freia.ChainShape.of(plain)
    return TorchDetector(
        dialect="ssnf",
        method="ssnf",
        options={"blocks": shape.blocks, "hidden": shape.hidden, "layout": "conv+attn"},
        clamp_kinds=shape.clamp_kinds,
        channels=(shape.channels,),
        variables=freia.join_scales([flow(plain)]),
        size=size(plain),
    )


def write(variables: Mapping[str, Any], encoder: Flat | None, indices: bool) -> dict[str, Any]:
    """The way back of `read`."""
    scales = freia.split_scales(variables)
    if len(scales) != 1:
        raise UserError(f"SSNF's code has one scale, this detector has {len(scales)}")
    found = freia.state_dict(scales[0], _LAYERS, 3, indices)
    for block, params in scales[0]["params"].items():
        attention, index = params["net"]["attention"], block.removeprefix("blocks_")
        prefix = f"module_list.{index}.subnet.attn.in_proj."
        found[prefix + _SCALE[0]] = attention["scale"].reshape(-1, 1)
        found[prefix + _DIRECTION[0]] = attention["direction"].T
    return {_PREFIX + key: tensor for key, tensor in found.items()}


def flow(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Converts the flow of one trained category.

    Args:
      state: tensors of the authors' checkpoint, with or without ``flow_model.`` in front.

    Returns:
      ``{"params": ..., "buffers": ...}`` of `flowad_jax.flows.ssnf_flow` with its default
      layout.

    Raises:
      UserError: a tensor is missing or unknown.
    """
    blocks: Flat = {}
    projections: dict[str, Flat] = {}
    for key, value in state.items():
        key = key.removeprefix(_PREFIX)
        if match := _PROJECTION.fullmatch(key):
            projections.setdefault(f"blocks_{match[1]}", {})[match[2]] = np.asarray(value)
        else:
            blocks[key] = value
    variables = freia.chain(blocks, _LAYERS)
    for name, params in variables["params"].items():
        tensors = projections.pop(name, {})
        # To keys, values and queries; rows become columns.
        scale, direction = (_take(name, tensors, names) for names in (_SCALE, _DIRECTION))
        refuse_rest(tensors, f"{name} of an SSNF flow")
        params["net"]["attention"] = {"scale": scale.ravel(), "direction": direction.T}
    if projections:
        raise UserError(f"an SSNF flow has attention in unknown blocks: {', '.join(projections)}")
    return variables


def _take(block: str, tensors: Flat, names: tuple[str, str]) -> np.ndarray:
    for name in names:
        if name in tensors:
            return tensors.pop(name)
    raise UserError(f"{block} of an SSNF flow has no tensor '{names[0]}' for its attention")


DIALECT = Dialect(
    known_by="SSNF (module_list.*.subnet.gate1.*)",
    matches=lambda content: any(
        re.search(r"module_list\.\d+\.subnet\.gate1\.", str(key)) for key in content
    ),
    read=read,
    write=write,
    unseen=("method.clamp", "method.heads", "encoder.taps", "encoder.final_norm"),
)
