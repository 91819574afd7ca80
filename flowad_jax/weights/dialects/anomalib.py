"""Lightning checkpoints of anomalib's Cflow; nothing goes back there."""

import re
from collections.abc import Mapping
from typing import Any

from flowad_jax.errors import UserError
from flowad_jax.weights import freia
from flowad_jax.weights.detectors import Dialect, TorchDetector
from flowad_jax.weights.foreign import shown
from flowad_jax.weights.layout import require_finite
from flowad_jax.weights.state_dicts import Flat, other_keys, size, state_dict, unwrapped

_ENCODER = "model.encoder.feature_extractor."
_DECODER = re.compile(r"model\.decoders\.(\d{1,4})\.(.+)")


def matches(content: Mapping[str, Any]) -> bool:
    """Whether there are tensors of decoders."""
    tensors = content.get("state_dict")
    names = [key for key in tensors if isinstance(key, str)] if isinstance(tensors, dict) else []
    return any(map(_DECODER.fullmatch, unwrapped(dict.fromkeys(names))))


def read(content: Mapping[str, Any]) -> TorchDetector:
    """Converts a checkpoint; thresholds and metrics are left out, since ours are fitted anew.

    Raises:
      UserError: the model has unknown tensors, no encoder, or lacks a decoder.
    """
    encoder: Flat = {}
    by_index: dict[int, Flat] = {}
    rest = []
    for key, tensor in state_dict(content, "state_dict", finite=False).items():
        if key.startswith(_ENCODER):
            encoder[key.removeprefix(_ENCODER)] = tensor
        elif match := _DECODER.fullmatch(key):
            by_index.setdefault(int(match[1]), {})[match[2]] = tensor
        elif key.startswith("model."):
            raise UserError(f"unknown tensor {shown(key)} in anomalib's model")
        else:
            rest.append(key)
    if sorted(by_index) != list(range(len(by_index))):
        raise UserError(f"has decoders {sorted(by_index)}, not all from 0 on")
    if not encoder:
        raise UserError(f"has no tensors {_ENCODER}*")
    decoders = [by_index[index] for index in sorted(by_index)]
    for index, state in enumerate(decoders):
        require_finite(state, f"'decoder {index}'")
    given = content.get("hyper_parameters")
    given = given if isinstance(given, dict) else {}
    alpha = given.get("clamp_alpha")
    clamp = {"clamp": float(alpha)} if isinstance(alpha, int | float) else {}
    shapes = [freia.ChainShape.of(state) for state in decoders]
    return TorchDetector(
        dialect="anomalib",
        method="cflow",
        options=freia.common(shapes, "blocks", "condition", "permutation") | clamp,
        # It has a coupling block of its own, made from FrEIA 0.2.
        clamp_kinds=("tanh",),
        channels=tuple(shape.channels for shape in shapes),
        variables=freia.join_scales([freia.chain(state) for state in decoders]),
        size=size(*decoders),
        encoder=encoder,
        about={name: given[name] for name in ("backbone", "layers") if _is_text(given.get(name))},
        left_out=(*other_keys(content, "state_dict", "hyper_parameters"), *rest),
    )


def _is_text(value: Any) -> bool:
    texts = value if isinstance(value, list | tuple) else [value]
    return bool(texts) and all(isinstance(text, str) for text in texts)


def encoder_settings(encoder: str) -> dict[str, Any]:
    """How the encoder, whose name the file has, is fed."""
    return {"encoder.name": encoder, "encoder.padding": "zeros", "data.filter": "bilinear"}


DIALECT = Dialect(
    known_by="anomalib's Cflow (state_dict with model.decoders.*)",
    matches=matches,
    read=read,
    encoder_settings=encoder_settings,
)
