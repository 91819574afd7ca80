"""Lightning checkpoints of anomalib's Fastflow."""

from collections.abc import Mapping
from typing import Any

from flowad_jax.errors import UserError
from flowad_jax.weights import freia, lightning
from flowad_jax.weights.detectors import Dialect, TorchDetector
from flowad_jax.weights.state_dicts import Flat, refuse_rest, size

_ENCODER, _FLOWS, _NORMS = "feature_extractor", "fast_flow_blocks", "norms"


def read(content: Mapping[str, Any]) -> TorchDetector:
    """Converts a checkpoint; thresholds and metrics are left out, since ours are fitted anew."""
    found = lightning.read(content, _ENCODER)
    tensors = dict(found.model)
    states, norms = (lightning.numbered(tensors, name) for name in (_FLOWS, _NORMS))
    refuse_rest(tensors, "anomalib's model")
    if norms and len(norms) != len(states):
        raise UserError(f"has {len(states)} flows, but {len(norms)} LayerNorms")
    shapes = [freia.ChainShape.of(state) for state in states]
    scales: list[dict[str, Any]] = []
    for index, state in enumerate(states):
        flow = freia.chain(state)
        params = {"flow": flow["params"]}
        if norms:
            params["norm"] = lightning.norm_of(norms[index], f"{_NORMS}.{index}")
        scales.append({"params": params, "buffers": {"flow": flow["buffers"]}})
    second = states[0].get("module_list.1.subnet.0.weight")
    return TorchDetector(
        dialect="fastflow",
        method="fastflow",
        options={
            **freia.common(shapes, "blocks"),
            "ratio": lightning.ratio_of(shapes),
            "conv3x3_only": second is not None and second.shape[-1] == 3,
            "layer_norm": bool(norms),
        },
        clamp_kinds=("tanh",),  # it has a coupling block of its own, made from FrEIA 0.2
        channels=tuple(shape.channels for shape in shapes),
        variables=freia.join_scales(scales),
        size=size(found.model),
        encoder=found.encoder,
        about=found.about,
        left_out=found.left_out,
    )


def write(variables: Mapping[str, Any], encoder: Flat | None, indices: bool) -> dict[str, Any]:
    """The way back of `read`."""
    model: Flat = {}
    for index, scale in enumerate(freia.split_scales(variables)):
        flow = {kind: scale[kind]["flow"] for kind in ("params", "buffers")}
        state = freia.state_dict(flow, freia.MLP, 3, indices)
        model |= {f"{_FLOWS}.{index}.{key}": tensor for key, tensor in state.items()}
        if "norm" in scale["params"]:
            model |= lightning.norm_state(scale["params"]["norm"], f"{_NORMS}.{index}")
    return lightning.written(model, encoder, _ENCODER)


DIALECT = Dialect(
    known_by="anomalib's Fastflow (state_dict with model.fast_flow_blocks.*)",
    matches=lightning.holds(rf"{_FLOWS}\."),
    read=read,
    write=write,
    encoder_settings=lightning.encoder_settings,
)
