"""Lightning checkpoints of anomalib's Uflow: one graph of modules, from the coarsest scale on."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.weights import freia, lightning
from flowad_jax.weights.detectors import Dialect, TorchDetector
from flowad_jax.weights.foreign import shown
from flowad_jax.weights.state_dicts import Flat, refuse_rest, size

_ENCODER = "feature_extractor.feature_extractor"
_NORMS, _GRAPH = "feature_extractor.feature_normalizations", "flow.module_list."
_BETWEEN = 3  # modules between the blocks of two scales: split, upsampling, concatenation
_UP = "downsample_kernel"


def read(content: Mapping[str, Any]) -> TorchDetector:
    """Converts a checkpoint; thresholds and metrics are left out, since ours are fitted anew."""
    found = lightning.read(content, _ENCODER)
    tensors = dict(found.model)
    norms = lightning.numbered(tensors, _NORMS)
    chains = _chains(lightning.taken(tensors, _GRAPH))
    refuse_rest(tensors, "anomalib's model")
    if norms and len(norms) != len(chains):
        raise UserError(f"has flows for {len(chains)} scales, but {len(norms)} LayerNorms")
    shapes = [freia.ChainShape.of(state) for state in chains]
    variables = freia.join_scales([freia.chain(state) for state in chains])
    if norms:
        variables["params"]["norm"] = {
            f"scale{index}": lightning.norm_of(norm, f"{_NORMS}.{index}")
            for index, norm in enumerate(norms)
        }
    lifted = [*(_rising(shape.channels) // 4 for shape in shapes[1:]), 0]
    return TorchDetector(
        dialect="uflow",
        method="uflow",
        options={
            "steps": freia.common(shapes, "blocks")["blocks"],
            **freia.common(shapes, "permutation"),
            "ratio": lightning.ratio_of(shapes),
            "layer_norm": bool(norms),
        },
        clamp_kinds=("tanh",),  # it has a coupling block of its own, made from FrEIA 0.2
        channels=tuple(s.channels - up for s, up in zip(shapes, lifted, strict=True)),
        variables=variables,
        size=size(found.model),
        encoder=found.encoder,
        about=found.about,
        left_out=found.left_out,
    )


def write(variables: Mapping[str, Any], encoder: Flat | None, indices: bool) -> dict[str, Any]:
    """The way back of `read`."""
    scales, model = freia.split_scales(variables), {}
    for stage, scale in enumerate(reversed(scales)):
        steps = len(scale["params"])
        first = stage * (steps + _BETWEEN)
        for key, tensor in freia.state_dict(scale, freia.MLP, 3, indices).items():
            _, index, name = key.split(".", 2)
            model[f"{_GRAPH}{first + int(index)}.{name}"] = tensor
        if stage + 1 < len(scales):
            channels = len(scale["params"]["blocks_0"]["global_scale"])
            squares = np.eye(4, dtype=np.float32).reshape(4, 1, 2, 2)
            up = np.tile(squares, (_rising(channels) // 4, 1, 1, 1))
            model[f"{_GRAPH}{first + steps + 1}.{_UP}"] = up
    for name, norm in variables["params"].get("norm", {}).items():
        model |= lightning.norm_state(norm, f"{_NORMS}.{name.removeprefix('scale')}")
    return lightning.written(model, encoder, _ENCODER)


def _rising(channels: int) -> int:
    """As of `flowad_jax.flows.u_shape`."""
    return 4 * (channels // 8)


def _chains(graph: Flat) -> list[Flat]:
    """The blocks of every scale, fine to coarse: runs of modules between which others lie."""
    runs: list[dict[int, Flat]] = []
    for key, tensor in sorted(graph.items(), key=_number):
        index, name = int(key.partition(".")[0]), key.partition(".")[2]
        if name == _UP:  # it is the same for all
            continue
        if not runs or index > max(runs[-1]) + 1:
            runs.append({})
        runs[-1].setdefault(index, {})[name] = tensor
    if not runs:
        raise UserError(f"has no tensors model.{_GRAPH}*")
    return [
        {
            f"module_list.{index - min(run)}.{name}": tensor
            for index, state in run.items()
            for name, tensor in state.items()
        }
        for run in reversed(runs)
    ]


def _number(item: tuple[str, np.ndarray]) -> int:
    if match := re.match(r"(\d{1,4})\.", item[0], re.ASCII):
        return int(match[1])
    raise UserError(f"unknown tensor {shown(_GRAPH + item[0])} in anomalib's model")


DIALECT = Dialect(
    known_by="anomalib's Uflow (state_dict with model.flow.module_list.* and several scales)",
    matches=lightning.holds(rf"flow\.module_list\.\d+\.{_UP}"),
    read=read,
    write=write,
    encoder_settings=lightning.encoder_settings,
)
