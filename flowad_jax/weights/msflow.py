"""State dicts of the MSFlow reference become variables of our `MultiScaleFlow`, and back."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowad_jax.errors import UserError, printable
from flowad_jax.weights import freia, permutations

Flat = Mapping[str, np.ndarray]

_PERMUTATION = re.compile(r"module_list\.\d+\.(perm|perm_inv)")
_LAYERS = {
    "cross_convs.conv1": "squeeze",
    "cross_convs.norm": "norm",
    "cross_convs.conv2": "expand",
}


def flows(parallel: Sequence[Flat], fusion: Flat) -> dict[str, dict]:
    """Converts the flows of one trained category.

    Args:
      parallel: state dict of the flow of every scale, shallow first (``parallel_flows``).
      fusion: state dict of the fusion flow (``fusion_flow``).

    Returns:
      ``{"params": ..., "constants": ...}`` of `flowad_jax.flows.MultiScaleFlow`.

    Raises:
      UserError: a tensor is missing, unknown, or belongs to no scale.
    """
    scales = [freia.chain(state, freia.CONV_NET) for state in parallel]
    variables = {
        kind: {f"scale{index}": scale[kind] for index, scale in enumerate(scales)}
        for kind in ("params", "constants")
    }
    channels = [len(scale["params"]["blocks_0"]["global_scale"]) for scale in scales]
    tensors = dict(fusion)
    variables["constants"]["fusion"] = _permutations(tensors, channels)
    try:
        variables["params"]["fusion"] = {
            f"net{k}": _net(tensors, f"module_list.{len(scales)}.subnet_{k}.", len(scales))
            for k in (1, 2)
        }
    except KeyError as missing:
        raise UserError(f"an MSFlow fusion flow has no tensor {missing}") from None
    if tensors:
        unknown = ", ".join(map(printable, sorted(tensors)))
        raise UserError(f"an MSFlow fusion flow has unknown tensors: {unknown}")
    return variables


def state_dicts(
    variables: Mapping[str, Any], indices: bool = False
) -> tuple[list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """The way back of `flows`: the parallel flows, shallow first, and the fusion flow.

    Args:
      variables: ``params`` and ``constants`` of a `flowad_jax.flows.MultiScaleFlow`.
      indices: see `freia.state_dict`; the fusion flow always has indices.
    """
    params, constants = variables["params"], variables["constants"]
    count = len(params) - 1
    scales = (
        {"params": params[f"scale{i}"], "constants": constants[f"scale{i}"]} for i in range(count)
    )
    parallel = [freia.state_dict(scale, freia.CONV_NET, 3, indices) for scale in scales]
    fusion: dict[str, np.ndarray] = {}
    for scale in range(count):
        order = np.asarray(constants["fusion"][f"permutation{scale}"])
        perm, inverse = permutations.to_freia(order, 1, indices=True)
        fusion |= {f"module_list.{scale}.perm": perm, f"module_list.{scale}.perm_inv": inverse}
    for k in (1, 2):
        net = params["fusion"][f"net{k}"]
        for theirs, ours in _layers(f"module_list.{count}.subnet_{k}.", count).items():
            fusion |= freia.layer_back(net[ours], theirs)
    return parallel, fusion


def _permutations(tensors: dict[str, np.ndarray], channels: list[int]) -> dict[str, np.ndarray]:
    """Takes the channel orders out of ``tensors`` and gives each to the scale of its length.

    The reference stores them in an order that differs from run to run.
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


def _net(tensors: dict[str, np.ndarray], prefix: str, scales: int) -> dict[str, dict]:
    layers = _layers(prefix, scales)
    return {ours: freia.layer(tensors, theirs) for theirs, ours in layers.items()}


def _layers(prefix: str, scales: int) -> dict[str, str]:
    """Names of the layers of a fusion net, theirs to ours."""
    layers = {prefix + theirs: ours for theirs, ours in _LAYERS.items()}
    for scale in range(scales):
        layers |= {f"{prefix}conv_{kind}.{scale}": f"{kind}{scale}" for kind in "st"}
    return layers
