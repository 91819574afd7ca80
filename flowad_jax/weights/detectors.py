"""A trained detector in a PyTorch checkpoint: whose code wrote it, and what it holds."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.weights import anomalib, freia, layout, msflow, sanflow, ssnf, wrappers
from flowad_jax.weights.unpickler import shown

Flat = dict[str, np.ndarray]

_KNOWN = (
    "CFLOW-AD (encoder_state_dict, decoder_state_dict), SANFlow (the same and variance), MSFlow "
    "(parallel_flows, fusion_flow), SSNF (module_list.*.subnet.gate1.*) and anomalib's Cflow "
    "(state_dict with model.decoders.*)"
)


class Found(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      dialect: ``"cflow"``, ``"sanflow"``, ``"msflow"``, ``"ssnf"`` or ``"anomalib"``.
      method: its name in `flowad_jax.methods`.
      options: arguments of the method that the file settles.
      clamp_kinds: what the coupling blocks may have been trained with, likeliest first.
      channels: of the feature maps, in the order of the file.
      variables: ``params`` and ``constants`` as the method has them, views of the file's tensors.
      encoder: state dict of the encoder, or None where the file has none.
      about: what the file says beside, e.g. ``backbone`` and ``layers`` of anomalib.
      left_out: names of entries that are not converted.
      size: bytes of the tensors that ``variables`` were made of.
    """

    dialect: str
    method: str
    options: dict[str, Any]
    clamp_kinds: tuple[str, ...]
    channels: tuple[int, ...]
    variables: dict[str, Any]
    encoder: Flat | None
    about: dict[str, Any]
    left_out: tuple[str, ...]
    size: int


def recognise(content: Any, source: str) -> Found:
    """Finds out which code wrote a checkpoint, and converts its flows.

    Args:
      content: what `torch_file.read` returns, with foreign objects.
      source: name of the file, for messages.

    Raises:
      UserError: it is none of the five, or something in it is missing, unknown or inconsistent,
        or holds what `layout.require_finite` refuses.
    """
    if isinstance(content, dict):
        try:
            for belongs, convert in _DIALECTS:
                if belongs(content):
                    return convert(content)
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Tensors of other shapes reach NumPy at many places.
            what = f"{type(error).__name__}: {error}"[:200]
            raise UserError(
                f"{source}: its tensors have other shapes or types than those of a detector that "
                f"we know ({what})"
            ) from error
    kind = type(content).__name__
    keys = ", ".join(shown(key) for key in list(content)[:6]) if isinstance(content, dict) else kind
    raise UserError(f"{source}: is no detector of {_KNOWN}; it holds {keys or 'nothing'}")


def _is_ssnf(content: Mapping[str, Any]) -> bool:
    return any(re.search(r"module_list\.\d+\.subnet\.gate1\.", str(key)) for key in content)


def _cflow(content: Mapping[str, Any]) -> Found:
    decoders = _flats(content, "decoder_state_dict")
    return Found(
        dialect="cflow",
        method="cflow",
        options=_mlp_options(decoders),
        clamp_kinds=_clamp_kinds(decoders),
        channels=_channels(decoders),
        variables=_by_scale([freia.chain(state) for state in decoders]),
        encoder=_flat(content, "encoder_state_dict"),
        about={},
        left_out=_others(content, "decoder_state_dict", "encoder_state_dict"),
        size=_size(*decoders),
    )


def _sanflow(content: Mapping[str, Any]) -> Found:
    decoders = _flats(content, "decoder_state_dict")
    variance = _finite(_flat(content, "variance"), "variance")
    return Found(
        dialect="sanflow",
        method="sanflow",
        options={**_mlp_options(decoders), "legacy": True},  # it scores as the released code does
        clamp_kinds=_clamp_kinds(decoders),
        channels=_channels(decoders),
        variables=sanflow.detector(decoders, variance),
        encoder=_flat(content, "encoder_state_dict"),
        about={},
        left_out=_others(content, "decoder_state_dict", "encoder_state_dict", "variance"),
        size=_size(*decoders, variance),
    )


def _msflow(content: Mapping[str, Any]) -> Found:
    parallel = _flats(content, "parallel_flows")
    fusion = _finite(_flat(content, "fusion_flow"), "fusion_flow")
    shapes = [freia.chain_shape(state) for state in parallel]
    return Found(
        dialect="msflow",
        method="msflow",
        options={
            "blocks": tuple(shape.blocks for shape in shapes),
            "condition": _same("condition", [shape.condition for shape in shapes]),
        },
        clamp_kinds=_clamp_kinds(parallel),
        channels=_channels(parallel),
        variables=msflow.flows(parallel, fusion),
        encoder=None,
        about={"epoch": content["epoch"]} if type(content.get("epoch")) is int else {},
        left_out=_others(content, "parallel_flows", "fusion_flow", "epoch"),
        size=_size(*parallel, fusion),
    )


def _ssnf(content: Mapping[str, Any]) -> Found:
    tensors = _finite(_as_flat(content, "checkpoint"), "checkpoint")
    plain = {key.removeprefix("flow_model."): value for key, value in tensors.items()}
    shape = freia.chain_shape(plain)
    return Found(
        dialect="ssnf",
        method="ssnf",
        options={"blocks": shape.blocks, "hidden": shape.hidden, "layout": "conv+attn"},
        clamp_kinds=freia.clamp_kinds(plain),
        channels=(shape.channels,),
        variables=_by_scale([ssnf.flow(plain)]),
        encoder=None,
        about={},
        left_out=(),
        size=_size(plain),
    )


def _anomalib(content: Mapping[str, Any]) -> Found:
    encoder, decoders, rest = anomalib.parts(_flat(content, "state_dict"))
    decoders = [_finite(state, f"decoder {index}") for index, state in enumerate(decoders)]
    given = content.get("hyper_parameters")
    return Found(
        dialect="anomalib",
        method="cflow",
        options=_mlp_options(decoders) | anomalib.options(given),
        clamp_kinds=anomalib.CLAMP_KINDS,
        channels=_channels(decoders),
        variables=_by_scale([freia.chain(state) for state in decoders]),
        encoder=encoder,
        about=anomalib.about(given),
        left_out=(*_others(content, "state_dict", "hyper_parameters"), *rest),
        size=_size(*decoders),
    )


def _mlp_options(decoders: Sequence[Flat]) -> dict[str, Any]:
    """What the shapes of CFLOW-AD's decoders settle."""
    shapes = [freia.chain_shape(state) for state in decoders]
    return {
        name: _same(name, [getattr(shape, name) for shape in shapes])
        for name in ("blocks", "condition", "permutation")
    }


def _by_scale(flows: Sequence[Mapping[str, dict]]) -> dict[str, Any]:
    return {
        kind: {f"scale{index}": flow[kind] for index, flow in enumerate(flows)}
        for kind in ("params", "constants")
    }


def _size(*states: Flat) -> int:
    return sum(tensor.nbytes for state in states for tensor in state.values())


def _channels(chains: Sequence[Flat]) -> tuple[int, ...]:
    return tuple(freia.chain_shape(state).channels for state in chains)


def _clamp_kinds(chains: Sequence[Flat]) -> tuple[str, ...]:
    return _same("kind of permutation", [freia.clamp_kinds(state) for state in chains])


def _same(what: str, values: Sequence[Any]) -> Any:
    if any(value != values[0] for value in values):
        raise UserError(f"its scales differ in {what}: {', '.join(map(str, values))}")
    return values[0]


def _flat(content: Mapping[str, Any], key: str) -> Flat:
    if key not in content:
        raise UserError(f"has no '{key}'")
    return _as_flat(content[key], key)


def _flats(content: Mapping[str, Any], key: str) -> list[Flat]:
    states = content.get(key)
    if not isinstance(states, list | tuple) or not states:
        raise UserError(f"'{key}' is no list of state dicts, one per scale")
    names = [f"{key}[{index}]" for index in range(len(states))]
    return [_finite(_as_flat(state, name), name) for state, name in zip(states, names, strict=True)]


def _finite(flat: Flat, name: str) -> Flat:
    """What a flow is made of; the heads and metrics that we leave out may hold anything."""
    layout.require_finite(flat, f"'{name}'")
    return flat


def _as_flat(state: Any, name: str) -> Flat:
    """A state dict with the names of the network itself."""
    flat = isinstance(state, dict) and all(
        isinstance(key, str) and isinstance(value, np.ndarray) for key, value in state.items()
    )
    if not flat or not state:
        raise UserError(f"'{name}' is no state dict of names and tensors")
    return wrappers.unwrapped(state)


def _others(content: Mapping[str, Any], *known: str) -> tuple[str, ...]:
    return tuple(shown(key).strip("'") for key in content if key not in known)


_DIALECTS: tuple[tuple[Any, Any], ...] = (
    (lambda c: "decoder_state_dict" in c and "variance" in c, _sanflow),
    (lambda c: "decoder_state_dict" in c, _cflow),
    (lambda c: "parallel_flows" in c or "fusion_flow" in c, _msflow),
    (anomalib.wrote, _anomalib),
    (_is_ssnf, _ssnf),
)
