"""What a Lightning checkpoint of anomalib's Cflow is made of."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.weights import wrappers
from flowad_jax.weights.unpickler import shown

Flat = dict[str, np.ndarray]

# It has a coupling block of its own, made from FrEIA 0.2: matrices and the first kind of clamp.
CLAMP_KINDS = ("tanh",)

_ENCODER = "model.encoder.feature_extractor."
_DECODER = re.compile(r"model\.decoders\.(\d{1,4})\.(.+)")


def wrote(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint looks like one of anomalib's Cflow."""
    tensors = content.get("state_dict")
    names = [key for key in tensors if isinstance(key, str)] if isinstance(tensors, dict) else []
    return any(map(_DECODER.fullmatch, wrappers.unwrapped(dict.fromkeys(names))))


def parts(tensors: Flat) -> tuple[Flat, list[Flat], list[str]]:
    """Splits the state dict of a checkpoint.

    Returns:
      The encoder's tensors, those of every decoder, and the names of thresholds and metrics, which
      a fit of ours replaces.

    Raises:
      UserError: the model has unknown tensors, no encoder, or lacks a decoder.
    """
    encoder: Flat = {}
    decoders: dict[int, Flat] = {}
    rest = []
    for key, tensor in tensors.items():
        if key.startswith(_ENCODER):
            encoder[key.removeprefix(_ENCODER)] = tensor
        elif match := _DECODER.fullmatch(key):
            decoders.setdefault(int(match[1]), {})[match[2]] = tensor
        elif key.startswith("model."):
            raise UserError(f"unknown tensor {shown(key)} in anomalib's model")
        else:
            rest.append(key)
    if sorted(decoders) != list(range(len(decoders))):
        raise UserError(f"has decoders {sorted(decoders)}, not all from 0 on")
    if not encoder:
        raise UserError(f"has no tensors {_ENCODER}*")
    return encoder, [decoders[index] for index in sorted(decoders)], rest


def options(given: Any) -> dict[str, Any]:
    """Arguments of the method that no tensor shows, from ``hyper_parameters``."""
    alpha = given.get("clamp_alpha") if isinstance(given, dict) else None
    return {"clamp": float(alpha)} if isinstance(alpha, int | float) else {}


def about(given: Any) -> dict[str, Any]:
    """Names of the encoder and of its layers, from ``hyper_parameters``."""
    found: dict[str, Any] = {}
    for name in ("backbone", "layers"):
        value = given.get(name) if isinstance(given, dict) else None
        texts = value if isinstance(value, list | tuple) else [value]
        if texts and all(isinstance(text, str) for text in texts):
            found[name] = value if isinstance(value, str) else list(texts)
    return found
