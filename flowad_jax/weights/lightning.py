"""Lightning checkpoints, as anomalib writes them: the tensors of a model and what is around."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.weights import freia
from flowad_jax.weights.foreign import shown
from flowad_jax.weights.layout import require_finite
from flowad_jax.weights.state_dicts import Flat, other_keys, state_dict, unwrapped

_MODEL = "model."
_NORM = {"weight": "scale", "bias": "bias"}


class Checkpoint(NamedTuple):
    """A checkpoint taken apart.

    Attributes:
      encoder: its state dict, or None.
      model: the other tensors of the model, all finite.
      about: texts that it says of the encoder, ``backbone`` and ``layers``.
      options: all that the model was made with, as far as the file says so.
      left_out: names of what is not converted: thresholds, metrics, states of optimizers.
    """

    encoder: Flat | None
    model: Flat
    about: dict[str, Any]
    options: Mapping[str, Any]
    left_out: tuple[str, ...]


def holds(*patterns: str) -> Callable[[Mapping[str, Any]], bool]:
    """Returns whether a checkpoint's model has, for each pattern, a tensor that starts so."""
    compiled = [re.compile(re.escape(_MODEL) + pattern) for pattern in patterns]

    def matches(content: Mapping[str, Any]) -> bool:
        tensors = content.get("state_dict")
        names = (
            [key for key in tensors if isinstance(key, str)] if isinstance(tensors, dict) else []
        )
        plain = unwrapped(dict.fromkeys(names))
        return all(any(map(pattern.match, plain)) for pattern in compiled)

    return matches


def read(content: Mapping[str, Any], encoder: str) -> Checkpoint:
    """Takes a checkpoint apart; tensors that start with ``model.<encoder>.`` are the encoder's.

    Raises:
      UserError: it has no tensors, or some of the flow's are not finite.
    """
    own, model, rest = {}, {}, []
    for key, tensor in state_dict(content, "state_dict", finite=False).items():
        name = key.removeprefix(_MODEL)
        if name == key:
            rest.append(key)
        elif name.startswith(f"{encoder}."):
            own[name.removeprefix(f"{encoder}.")] = tensor
        else:
            model[name] = tensor
    require_finite(model, "'model'")
    given = content.get("hyper_parameters")
    given = given if isinstance(given, dict) else {}
    about = {name: given[name] for name in ("backbone", "layers") if _is_text(given.get(name))}
    left_out = (*other_keys(content, "state_dict", "hyper_parameters"), *rest)
    return Checkpoint(own or None, model, about, given, left_out)


def written(model: Flat, encoder: Flat | None, prefix: str) -> dict[str, Any]:
    """The way back of `read`."""
    tensors = {f"{prefix}.{key}": tensor for key, tensor in (encoder or {}).items()} | model
    return {"state_dict": {_MODEL + key: tensor for key, tensor in tensors.items()}}


def taken(tensors: Flat, prefix: str) -> Flat:
    """Takes the tensors that start with ``prefix`` out of ``tensors``, without it."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def numbered(tensors: Flat, prefix: str) -> list[Flat]:
    """Takes ``prefix.0.*``, ``prefix.1.*`` and so on out of ``tensors``.

    Raises:
      UserError: a number is missing.
    """
    found: dict[int, Flat] = {}
    for name, tensor in taken(tensors, f"{prefix}.").items():
        number, _, rest = name.partition(".")
        if not (number.isascii() and number.isdigit() and len(number) < 5):
            raise UserError(f"unknown tensor {shown(f'{prefix}.{name}')} in anomalib's model")
        found.setdefault(int(number), {})[rest] = tensor
    if sorted(found) != list(range(len(found))):
        raise UserError(f"has {prefix} {sorted(found)}, not all from 0 on")
    return [found[index] for index in sorted(found)]


def norm_of(tensors: Flat, name: str) -> dict[str, np.ndarray]:
    """A LayerNorm over (C, h, w) as ours over (h, w, C)."""
    if tensors.keys() != {"weight", "bias"} or any(x.ndim != 3 for x in tensors.values()):
        raise UserError(f"'{name}' is no LayerNorm over channels and positions")
    return {
        "scale": tensors["weight"].transpose(1, 2, 0),
        "bias": tensors["bias"].transpose(1, 2, 0),
    }


def norm_state(params: Mapping[str, np.ndarray], name: str) -> Flat:
    """The way back of `norm_of`."""
    pairs = (("weight", "scale"), ("bias", "bias"))
    return {
        f"{name}.{theirs}": np.asarray(params[ours]).transpose(2, 0, 1) for theirs, ours in pairs
    }


def ratio_of(shapes: Sequence[freia.ChainShape]) -> float:
    """The shortest number that, times the inputs of each net, gives its hidden channels.

    Raises:
      UserError: there is none for all chains.
    """
    pairs = [(shape.channels - shape.channels // 2, shape.hidden) for shape in shapes]
    lowest = max(hidden / inputs for inputs, hidden in pairs)
    for digits in range(8):
        ratio = np.ceil(lowest * 10**digits) / 10**digits
        if all(int(inputs * ratio) == hidden for inputs, hidden in pairs):
            return float(ratio)
    raise UserError(f"no ratio gives (inputs, hidden channels) {pairs} of its nets")


def _is_text(value: Any) -> bool:
    texts = value if isinstance(value, list | tuple) else [value]
    return bool(texts) and all(isinstance(text, str) for text in texts)


def encoder_settings(encoder: str) -> dict[str, Any]:
    """How anomalib feeds the encoder, whose name the file has."""
    padding = {"encoder.padding": "zeros"} if encoder.startswith("resnet.") else {}
    return {"encoder.name": encoder, "data.filter": "bilinear", **padding}
