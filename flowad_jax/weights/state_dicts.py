"""State dicts in a checkpoint, under the names that tensors have in the network itself."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.weights.foreign import shown
from flowad_jax.weights.layout import require_finite

T = TypeVar("T")
Flat = dict[str, np.ndarray]

# Of torch.compile, fully sharded training and activation checkpointing, around any module.
_ANYWHERE = re.compile(
    r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.", re.ASCII
)
# Of DataParallel, DistributedDataParallel and AveragedModel, around the whole network; the last of
# them counts, too.
_OUTSIDE = re.compile(r"(?:module\.)*")
_COUNTER = "n_averaged"


def unwrapped(tensors: Mapping[str, T]) -> dict[str, T]:
    """The same tensors without the names of wrappers, in whatever order these are nested."""
    plain: dict[str, T] = {}
    for name, tensor in tensors.items():
        inside = _ANYWHERE.sub("", name)
        if inside in plain:
            raise UserError(f"has the tensor {shown(inside)} twice, with and without a wrapper")
        plain[inside] = tensor
    plain.pop(_COUNTER, None)
    common = min((match.end() for match in map(_OUTSIDE.match, plain) if match), default=0)
    return {name[common:]: tensor for name, tensor in plain.items()}


def state_dict(content: Mapping[str, Any], key: str, finite: bool = True) -> Flat:
    """The state dict under a key, `unwrapped` and, if asked for, checked by `require_finite`."""
    if key not in content:
        raise UserError(f"has no '{key}'")
    return as_state_dict(content[key], key, finite)


def state_dict_list(content: Mapping[str, Any], key: str) -> list[Flat]:
    """The state dicts, one per scale, in the list under a key; see `state_dict`."""
    states = content.get(key)
    if not isinstance(states, list | tuple) or not states:
        raise UserError(f"'{key}' is no list of state dicts, one per scale")
    return [as_state_dict(state, f"{key}[{index}]") for index, state in enumerate(states)]


def as_state_dict(state: Any, name: str, finite: bool = True) -> Flat:
    """A value as a state dict; see `state_dict`."""
    flat = isinstance(state, dict) and all(
        isinstance(key, str) and isinstance(value, np.ndarray) for key, value in state.items()
    )
    if not flat or not state:
        raise UserError(f"'{name}' is no state dict of names and tensors")
    plain = unwrapped(state)
    if finite:
        require_finite(plain, f"'{name}'")
    return plain


def other_keys(content: Mapping[str, Any], *known: str) -> tuple[str, ...]:
    """The keys of a checkpoint beside the known ones, for the user to read."""
    return tuple(shown(key).strip("'") for key in content if key not in known)


def size(*states: Flat) -> int:
    """The bytes of all tensors."""
    return sum(tensor.nbytes for state in states for tensor in state.values())


def refuse_rest(tensors: Mapping[str, Any], owner: str, prefix: str = "") -> None:
    """Raises a UserError that names the tensors which are left over, if any."""
    if tensors:
        names = ", ".join(shown(prefix + name) for name in sorted(tensors)[:20])
        raise UserError(f"{owner} has unknown tensors: {names}")
