"""State dicts of FrEIA's all-in-one blocks become variables of our flows, and the way back.

FrEIA stores every permutation twice, with its inverse, in forms that changed over the years; we
keep it once, see `permutations`. The git tag v0.2 had other names than the package 0.2.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.weights import permutations
from flowad_jax.weights.unpickler import shown

Flat = Mapping[str, np.ndarray]

_KEY = re.compile(r"module_list\.(\d{1,4})\.(.+)")
# Layers of the sub-networks, theirs and ours.
MLP = {"subnet.0": "hidden", "subnet.2": "out"}
CONV_NET = {"subnet.conv1": "hidden", "subnet.ln": "norm", "subnet.conv2": "out"}
# Names of the git tag v0.2, and what the package 0.2 calls them.
_TAG_NAMES = {"w_inv": "w_perm_inv", "w": "w_perm"}
_TRAINED = ("vk_householder", "w_0")  # reflections that FrEIA trains in the place of `w_perm`
_CLAMP_KINDS = {
    "indices": ("tanh_ratio", "tanh"),
    "one-hot": ("tanh",),
    "rotation": ("tanh", "tanh_ratio"),
}
_FIRST_LAYERS = ("subnet.0.weight", "subnet.conv1.weight", "subnet.gate1.weight")


class ChainShape(NamedTuple):
    """What the shapes of a chain settle.

    Attributes:
      channels: C of the data.
      blocks: length of the chain.
      condition: P, size of the condition beside the passive channels.
      hidden: width of the first layer of the sub-networks.
      permutation: ``"soft"`` or ``"hard"``.
    """

    channels: int
    blocks: int
    condition: int
    hidden: int
    permutation: str


def chain(state_dict: Flat, layers: Mapping[str, str] = MLP) -> dict[str, dict]:
    """Converts a chain of blocks, such as a decoder of CFLOW-AD or a parallel flow of MSFlow.

    Args:
      state_dict: ``module_list.{k}.*`` tensors of a FrEIA ``SequenceINN``.
      layers: names of the sub-network's layers, theirs to ours.

    Returns:
      ``{"params": ..., "constants": ...}`` of a `flowad_jax.flows.Flow`, views of the tensors.

    Raises:
      UserError: a key is missing or unknown, a permutation is none, or blocks differ in size or in
        how they store it.
    """
    params, constants = {}, {}
    blocks = _blocks(state_dict)
    for index, tensors in blocks.items():
        name = f"blocks_{index}"
        params[name], constants[name] = block(tensors, layers, f"module_list.{index}.")
    _check_alike(blocks)
    return {"params": params, "constants": constants}


def block(
    tensors: Flat, layers: Mapping[str, str] = MLP, prefix: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts one block into its (params, constants); see `chain` for ``layers``."""
    tensors = dict(tensors)
    _refuse_trained(tensors, prefix)
    try:
        params: dict = {
            "global_scale": tensors.pop("global_scale").ravel(),
            "global_offset": tensors.pop("global_offset").ravel(),
            "net": {ours: layer(tensors, theirs) for theirs, ours in layers.items()},
        }
        stored = tensors.pop("w_perm")
    except KeyError as missing:
        raise UserError(f"a FrEIA block has no tensor '{prefix}{missing.args[0]}'") from None
    inverse = tensors.pop("w_perm_inv", None)
    if tensors:
        unknown = ", ".join(shown(prefix + name) for name in sorted(tensors))
        raise UserError(f"a FrEIA block has unknown tensors: {unknown}")
    order = permutations.from_freia(stored, inverse, f"{prefix}w_perm")
    if len(order) != params["global_scale"].size:
        raise UserError(
            f"'{prefix}w_perm' permutes {len(order)} channels, but '{prefix}global_scale' has "
            f"{params['global_scale'].size}"
        )
    return params, {"permutation": order}


def layer(tensors: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Takes weight and bias of a linear layer, a convolution or a LayerNorm out of ``tensors``.

    Raises:
      KeyError: one of them is missing.
    """
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
      variables: ``params`` and ``constants`` of a flow.
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
        order = np.asarray(variables["constants"][name]["permutation"])
        both = permutations.to_freia(order, rank, indices)
        found[f"{prefix}w_perm"], found[f"{prefix}w_perm_inv"] = both
        for theirs, ours in layers.items():
            found |= layer_back(params["net"][ours], prefix + theirs)
    return found


def layer_back(params: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The way back of `layer`."""
    weight = params["scale"] if "scale" in params else params["kernel"]
    if weight.ndim > 1:
        weight = np.moveaxis(weight, (-1, -2), (0, 1))
    return {f"{name}.weight": weight, f"{name}.bias": params["bias"]}


def clamp_kinds(state_dict: Flat) -> tuple[str, ...]:
    """The bounds on log-scales that a chain may have been trained with, likeliest first.

    FrEIA stores orders as indices since June 2023 and has the newer bound since August 2023, see
    `flowad_jax.flows.coupling.CLAMPS`: one-hot matrices are older than both, indices may be
    either, and rotations are matrices to this day.
    """
    stored = _blocks(state_dict)[0].get("w_perm")
    if stored is None:
        raise UserError("a FrEIA block has no tensor 'module_list.0.w_perm'")
    return _CLAMP_KINDS[permutations.form(stored, "module_list.0.w_perm")]


def chain_shape(state_dict: Flat) -> ChainShape:
    """Reads off what the shapes of a chain settle.

    Raises:
      UserError: it has no block, blocks are not numbered from 0, or the first is of no known kind
        or has too few inputs. That all blocks are alike is up to `chain`.
    """
    blocks = _blocks(state_dict)
    first = blocks[0]
    key = next((name for name in _FIRST_LAYERS if name in first), None)
    weight = None if key is None else first[key]
    if weight is None or weight.ndim < 2 or "global_scale" not in first or "w_perm" not in first:
        raise UserError("'module_list.0' is no block with a known sub-network")
    channels = first["global_scale"].size
    passive = channels - channels // 2
    if weight.shape[1] < passive:
        raise UserError(
            f"'module_list.0.{key}' takes {weight.shape[1]} inputs, fewer than the {passive} "
            f"passive ones of {channels} channels"
        )
    form = permutations.form(first["w_perm"], "module_list.0.w_perm")
    return ChainShape(
        channels=channels,
        blocks=len(blocks),
        condition=weight.shape[1] - passive,
        hidden=weight.shape[0],
        permutation="soft" if form == "rotation" else "hard",
    )


def _check_alike(blocks: Mapping[int, Mapping[str, np.ndarray]]) -> None:
    """A chain is made at once: all blocks have the channels and the permutations of the first."""
    seen: dict[str, Any] = {}
    for index, tensors in blocks.items():
        key = f"module_list.{index}.w_perm"
        found = {
            "channels": len(tensors["w_perm"]),
            "a permutation stored as": permutations.form(tensors["w_perm"], key),
        }
        for what, value in found.items():
            if seen.setdefault(what, value) != value:
                raise UserError(f"'{key}' has {what} {value}, that of block 0 {seen[what]}")


def _refuse_trained(tensors: Flat, prefix: str) -> None:
    trained = next((name for name in _TRAINED if name in tensors), None)
    if trained is not None:
        raise UserError(
            f"'{prefix}{trained}' is a trained permutation, which our blocks do not have; "
            "only files that were trained with learned_householder_permutation=0 can be converted"
        )


def _blocks(state_dict: Flat) -> dict[int, dict[str, np.ndarray]]:
    """The tensors of every block, by the names of today."""
    blocks: dict[int, dict[str, np.ndarray]] = {}
    for key, value in state_dict.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise UserError(f"unknown key {shown(key)} in a FrEIA chain")
        blocks.setdefault(int(match[1]), {})[_today(match[2])] = np.asarray(value)
    if not blocks or sorted(blocks) != list(range(len(blocks))):
        raise UserError(f"a FrEIA chain has blocks {sorted(blocks)}, not all from 0 on")
    for index in sorted(blocks):  # here, since such a block lacks what others are known by
        _refuse_trained(blocks[index], f"module_list.{index}.")
    return dict(sorted(blocks.items()))


def _today(name: str) -> str:
    if name.startswith("s."):
        return f"subnet.{name.removeprefix('s.')}"
    return _TAG_NAMES.get(name, name)
