"""The authors' code of MSFlow: a flow for every scale, and one that fuses them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.weights import freia, permutations
from flowad_jax.weights.detectors import Dialect, TorchDetector, resnet_padding
from flowad_jax.weights.state_dicts import (
    Flat,
    other_keys,
    refuse_rest,
    size,
    state_dict,
    state_dict_list,
)

_PERMUTATION = re.compile(r"module_list\.\d+\.(perm|perm_inv)")
_LAYERS = {
    "cross_convs.conv1": "squeeze",
    "cross_convs.norm": "norm",
    "cross_convs.conv2": "expand",
}


def read(content: Mapping[str, Any]) -> TorchDetector:
    """Converts a checkpoint."""
    parallel = state_dict_list(content, "parallel_flows")
    fusion = state_dict(content, "fusion_flow")
    shapes = [freia.ChainShape.of(state) for state in parallel]
    return TorchDetector(
        dialect="msflow",
        method="msflow",
        options={"blocks": tuple(s.blocks for s in shapes), **freia.common(shapes, "condition")},
        **freia.common(shapes, "clamp_kinds"),
        channels=tuple(shape.channels for shape in shapes),
        variables=flows(parallel, fusion),
        size=size(*parallel, fusion),
        about={"epoch": content["epoch"]} if type(content.get("epoch")) is int else {},
        left_out=other_keys(content, "parallel_flows", "fusion_flow", "epoch"),
    )


def write(variables: Mapping[str, Any], encoder: Flat | None, indices: bool) -> dict[str, Any]:
    """The way back of `read`; the fusion flow always has indices."""
    scales = freia.split_scales(variables)
    fusion: Flat = {}
    for scale in range(len(scales)):
        order = np.asarray(variables["buffers"]["fusion"][f"permutation{scale}"])
        perm, inverse = permutations.to_freia(order, 1, indices=True)
        fusion |= {f"module_list.{scale}.perm": perm, f"module_list.{scale}.perm_inv": inverse}
    for k in (1, 2):
        net = variables["params"]["fusion"][f"net{k}"]
        for theirs, ours in _layers(f"module_list.{len(scales)}.subnet_{k}.", len(scales)).items():
            fusion |= freia.layer_state(net[ours], theirs)
    parallel = [freia.state_dict(scale, freia.CONV_NET, 3, indices) for scale in scales]
    return {"epoch": 0, "fusion_flow": fusion, "parallel_flows": parallel}


def flows(
    parallel: Sequence[Mapping[str, np.ndarray]], fusion: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Converts the flows of one trained category.

    Args:
      parallel: state dict of the flow of every scale, shallow first (``parallel_flows``).
      fusion: state dict of the fusion flow (``fusion_flow``).

    Returns:
      ``{"params": ..., "buffers": ...}`` of `flowad_jax.flows.MultiScaleFlow`.

    Raises:
      UserError: a tensor is missing, unknown, or belongs to no scale.
    """
    scales = [freia.chain(state, freia.CONV_NET) for state in parallel]
    variables = freia.join_scales(scales)
    tensors, count = dict(fusion), len(scales)
    channels = [len(scale["params"]["blocks_0"]["global_scale"]) for scale in scales]
    variables["buffers"]["fusion"] = _permutations(tensors, channels)
    try:
        variables["params"]["fusion"] = {
            f"net{k}": {
                ours: freia.layer(tensors, theirs)
                for theirs, ours in _layers(f"module_list.{count}.subnet_{k}.", count).items()
            }
            for k in (1, 2)
        }
    except KeyError as missing:
        raise UserError(f"an MSFlow fusion flow has no tensor {missing}") from None
    refuse_rest(tensors, "an MSFlow fusion flow")
    return variables


def _permutations(tensors: Flat, channels: list[int]) -> Flat:
    """Takes the channel orders out of ``tensors`` and gives each to the scale of its length.

    The authors' code stores them in an order that differs from run to run.
    """
    keys = [key for key in tensors if _PERMUTATION.fullmatch(key)]
    stored = {key: tensors.pop(key) for key in keys}
    if flawed := next((key for key, value in stored.items() if value.ndim != 1), None):
        raise UserError(f"'{flawed}' has shape {stored[flawed].shape}: it is no order of channels")
    orders = {key: value for key, value in stored.items() if key.endswith(".perm")}
    lengths = sorted(map(len, orders.values()))
    if lengths != sorted(set(channels)):
        raise UserError(
            f"an MSFlow fusion flow has channel orders of lengths {lengths}, but "
            f"its scales have {channels} channels"
        )
    by_length = {
        len(order): permutations.from_freia(order, stored.get(f"{key}_inv"), key)
        for key, order in orders.items()
    }
    return {f"permutation{scale}": by_length[count] for scale, count in enumerate(channels)}


def _layers(prefix: str, scales: int) -> dict[str, str]:
    """Names of the layers of a fusion net, theirs to ours."""
    layers = {prefix + theirs: ours for theirs, ours in _LAYERS.items()}
    for scale in range(scales):
        layers |= {f"{prefix}conv_{kind}.{scale}": f"{kind}{scale}" for kind in "st"}
    return layers


DIALECT = Dialect(
    known_by="MSFlow (parallel_flows, fusion_flow)",
    matches=lambda content: "parallel_flows" in content or "fusion_flow" in content,
    read=read,
    write=write,
    unseen=("method.clamp", "encoder.pool"),
    encoder_settings=resnet_padding,
)
