"""State dicts of FrEIA's all-in-one blocks become variables of our flows, and the way back.

FrEIA stores every permutation twice, with its inverse, in forms that changed over the years; we
keep it once, see `permutations`. The git tag v0.2 had other names than the package 0.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.weights import permutations
from flowad_jax.weights.foreign import shown
from flowad_jax.weights.state_dicts import refuse_rest

Flat = Mapping[str, np.ndarray]

# Layers of the sub-networks, theirs and ours.
MLP = {"subnet.0": "hidden", "subnet.2": "out"}
CONV_NET = {"subnet.conv1": "hidden", "subnet.ln": "norm", "subnet.conv2": "out"}

_KEY = re.compile(r"module_list\.(\d{1,4})\.(.+)")
# Names of the git tag v0.2, and what the package 0.2 calls them.
_TAG_NAMES = {"w_inv": "w_perm_inv", "w": "w_perm"}
_TRAINED = ("vk_householder", "w_0")  # reflections that FrEIA trains in the place of `w_perm`
_FIRST_LAYERS = ("subnet.0.weight", "subnet.conv1.weight", "subnet.gate1.weight")
# FrEIA stores orders as indices since June 2023 and has the newer bound since August 2023, see
# `flowad_jax.flows.coupling.CLAMPS`: one-hot matrices are older than both, indices may be either,
# and rotations are matrices to this day.
_CLAMP_KINDS = {
    "indices": ("tanh_ratio", "tanh"),
    "one-hot": ("tanh",),
    "rotation": ("tanh", "tanh_ratio"),
}


def chain(state: Flat, layers: Mapping[str, str] = MLP) -> dict[str, Any]:
    """Converts a chain of blocks, such as a decoder of CFLOW-AD or a parallel flow of MSFlow.

    Args:
      state: ``module_list.{k}.*`` tensors of a FrEIA ``SequenceINN``.
      layers: names of the sub-network's layers, theirs to ours.

    Returns:
      ``{"params": ..., "buffers": ...}`` of a `flowad_jax.flows.Flow`, views of the tensors.

    Raises:
      UserError: a key is missing or unknown, a permutation is none, or blocks differ in size or in
        how they store it.
    """
    params, buffers = {}, {}
    seen: dict[str, Any] = {}
    for index, tensors in _blocks(state).items():
        prefix, name = f"module_list.{index}.", f"blocks_{index}"
        params[name], buffers[name] = block(tensors, layers, prefix)
        stored, key = tensors["w_perm"], f"{prefix}w_perm"
        form = permutations.form(stored, key)
        # A chain is made at once: all blocks have the channels and the form of the first.
        for what, value in (("channels", len(stored)), ("a permutation stored as", form)):
            if seen.setdefault(what, value) != value:
                raise UserError(f"'{key}' has {what} {value}, that of block 0 {seen[what]}")
    return {"params": params, "buffers": buffers}


def block(
    tensors: Flat, layers: Mapping[str, str] = MLP, prefix: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts one block into its (params, buffers); see `chain` for ``layers``."""
    rest = dict(tensors)
    _refuse_trained(rest, prefix)
    try:
        params: dict[str, Any] = {
            "global_scale": rest.pop("global_scale").ravel(),
            "global_offset": rest.pop("global_offset").ravel(),
            "net": {ours: layer(rest, theirs) for theirs, ours in layers.items()},
        }
        stored = rest.pop("w_perm")
    except KeyError as missing:
        raise UserError(f"a FrEIA block has no tensor '{prefix}{missing.args[0]}'") from None
    inverse = rest.pop("w_perm_inv", None)
    refuse_rest(rest, "a FrEIA block", prefix)
    order = permutations.from_freia(stored, inverse, f"{prefix}w_perm")
    if len(order) != params["global_scale"].size:
        raise UserError(
            f"'{prefix}w_perm' permutes {len(order)} channels, but '{prefix}global_scale' has "
            f"{params['global_scale'].size}"
        )
    return params, {"permutation": order}


def layer(tensors: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Takes weight and bias of a linear layer, a convolution or a LayerNorm out of ``tensors``."""
    weight, bias = tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.bias")
    if weight.ndim == 1:
        return {"scale": weight, "bias": bias}
    if weight.ndim == 0:
        raise UserError(f"'{name}.weight' is a single number")
    # The spatial axes, if any, first, then inputs, then outputs.
    return {"kernel": np.moveaxis(weight, (0, 1), (-1, -2)), "bias": bias}


def state_dict(
    variables: Mapping[str, Any],
    layers: Mapping[str, str] = MLP,
    rank: int = 1,
    indices: bool = False,
) -> dict[str, np.ndarray]:
    """The way back of `chain`.

    Args:
      variables: ``params`` and ``buffers`` of a flow.
      layers: names of the sub-network's layers, theirs to ours.
      rank: axes of a row (1) or map (3) behind the batch.
      indices: stores orders as FrEIA does since June 2023, see `permutations.to_freia`.
    """
    found: dict[str, np.ndarray] = {}
    for index in range(len(variables["params"])):
        prefix, name = f"module_list.{index}.", f"blocks_{index}"
        params = variables["params"][name]
        for own in ("global_scale", "global_offset"):
            found[prefix + own] = params[own].reshape(1, -1, *(1,) * (rank - 1))
        order = np.asarray(variables["buffers"][name]["permutation"])
        both = permutations.to_freia(order, rank, indices)
        found[f"{prefix}w_perm"], found[f"{prefix}w_perm_inv"] = both
        for theirs, ours in layers.items():
            found |= layer_state(params["net"][ours], prefix + theirs)
    return found


def layer_state(params: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The way back of `layer`."""
    weight = params["scale"] if "scale" in params else params["kernel"]
    if weight.ndim > 1:
        weight = np.moveaxis(weight, (-1, -2), (0, 1))
    return {f"{name}.weight": weight, f"{name}.bias": params["bias"]}


def join_scales(flows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The variables of a method that has these flows, one for every scale."""
    return {
        kind: {f"scale{index}": flow[kind] for index, flow in enumerate(flows)}
        for kind in ("params", "buffers")
    }


def split_scales(variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The way back of `join_scales`; other groups of variables are left out."""
    count = sum(name.startswith("scale") for name in variables["params"])
    return [
        {kind: variables[kind][f"scale{index}"] for kind in ("params", "buffers")}
        for index in range(count)
    ]


class ChainShape(NamedTuple):
    """What the tensors of a chain settle.

    Attributes:
      channels: C of the data.
      blocks: length of the chain.
      condition: P, size of the condition beside the passive channels.
      hidden: width of the first layer of the sub-networks.
      permutation: ``"soft"`` or ``"hard"``.
      clamp_kinds: bounds on log-scales that it may have been trained with, likeliest first.
    """

    channels: int
    blocks: int
    condition: int
    hidden: int
    permutation: str
    clamp_kinds: tuple[str, ...]

    @classmethod
    def of(cls, state: Flat) -> ChainShape:
        """Reads off the first block; that all blocks are alike is up to `chain`."""
        blocks = _blocks(state)
        first = blocks[0]
        key = next((name for name in _FIRST_LAYERS if name in first), None)
        weight = None if key is None else first[key]
        if weight is None or weight.ndim < 2 or not {"global_scale", "w_perm"} <= first.keys():
            raise UserError("'module_list.0' is no block with a known sub-network")
        channels = first["global_scale"].size
        passive = channels - channels // 2
        if weight.shape[1] < passive:
            raise UserError(
                f"'module_list.0.{key}' takes {weight.shape[1]} inputs, fewer than the {passive} "
                f"passive ones of {channels} channels"
            )
        form = permutations.form(first["w_perm"], "module_list.0.w_perm")
        permutation = "soft" if form == "rotation" else "hard"
        condition, kinds = weight.shape[1] - passive, _CLAMP_KINDS[form]
        return cls(channels, len(blocks), condition, weight.shape[0], permutation, kinds)


def common(shapes: Sequence[ChainShape], *names: str) -> dict[str, Any]:
    """The named attributes, in which the chains of a detector must not differ."""
    found = {name: [getattr(shape, name) for shape in shapes] for name in names}
    for name, values in found.items():
        if any(value != values[0] for value in values):
            raise UserError(f"its scales differ in {name}: {', '.join(map(str, values))}")
    return {name: values[0] for name, values in found.items()}


def _refuse_trained(tensors: Flat, prefix: str) -> None:
    trained = next((name for name in _TRAINED if name in tensors), None)
    if trained is not None:
        raise UserError(
            f"'{prefix}{trained}' is a trained permutation, which our blocks do not have; "
            "only files that were trained with learned_householder_permutation=0 can be converted"
        )


def _blocks(state: Flat) -> dict[int, dict[str, np.ndarray]]:
    """The tensors of every block, by the names of today."""
    blocks: dict[int, dict[str, np.ndarray]] = {}
    for key, value in state.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise UserError(f"unknown key {shown(key)} in a FrEIA chain")
        name = re.sub(r"^s\.", "subnet.", match[2])
        blocks.setdefault(int(match[1]), {})[_TAG_NAMES.get(name, name)] = np.asarray(value)
    if not blocks or sorted(blocks) != list(range(len(blocks))):
        raise UserError(f"a FrEIA chain has blocks {sorted(blocks)}, not all from 0 on")
    for index in sorted(blocks):  # here, since such a block lacks what others are known by
        _refuse_trained(blocks[index], f"module_list.{index}.")
    return dict(sorted(blocks.items()))
