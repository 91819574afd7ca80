"""Lightning checkpoints of anomalib's Patchflow."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.weights import freia, lightning
from flowad_jax.weights.detectors import Dialect, TorchDetector
from flowad_jax.weights.state_dicts import Flat, refuse_rest, size

_ENCODER, _ADAPTOR = "feature_extractor.feature_extractor", "feature_adaptor."
_LAYERS = {"subnet.0": "hidden", "subnet.1": "out"}
_STATISTICS = {"running_mean": "mean", "running_var": "var"}
_UNSEEN = ("method.clamp", "method.pool", "encoder.pyramid", "encoder.strides")


def read(content: Mapping[str, Any]) -> TorchDetector:
    """Converts a checkpoint; thresholds and metrics are left out, since ours are fitted anew."""
    found = lightning.read(content, _ENCODER)
    tensors = dict(found.model)
    adaptor, state = (lightning.taken(tensors, prefix) for prefix in (_ADAPTOR, "flow."))
    refuse_rest(tensors, "anomalib's model")
    weight = adaptor.get("weight")
    if weight is None or "bias" not in adaptor or weight.ndim != 4 or weight.shape[2:] != (1, 1):
        raise UserError(f"model.{_ADAPTOR}* is no 1 x 1 convolution")
    norms = {key: state.pop(key) for key in [*state] if ".subnet.2." in key}
    shape = freia.ChainShape.of(state)
    flow = freia.chain(state, _LAYERS)
    for index in range(shape.blocks):
        _add_norm(flow, norms, index)
    refuse_rest(norms, "anomalib's flow")
    projection = {"kernel": weight[:, :, 0, 0].T, "bias": adaptor["bias"]}
    return TorchDetector(
        dialect="patchflow",
        method="patchflow",
        options={
            "channels": shape.channels,
            "hidden": shape.hidden,
            "blocks": shape.blocks,
            "projection": "trained",
        },
        clamp_kinds=("tanh",),  # it has a coupling block of its own, made from FrEIA 0.2
        channels=(),  # one convolution takes all maps together
        variables={
            "params": {"flow": flow["params"], "projection": projection},
            "buffers": {"flow": flow["buffers"]},
        },
        size=size(found.model),
        encoder=found.encoder,
        about=found.about,
        left_out=found.left_out,
    )


def write(variables: Mapping[str, Any], encoder: Flat | None, indices: bool) -> dict[str, Any]:
    """The way back of `read`; a frozen projection becomes a convolution like a trained one."""
    flow = {kind: variables[kind]["flow"] for kind in ("params", "buffers")}
    state = freia.state_dict(flow, _LAYERS, 3, indices)
    for block, params in flow["params"].items():
        name = f"module_list.{block.removeprefix('blocks_')}.subnet.2"
        state |= freia.layer_state(params["net"]["norm"], name)
        running = flow["buffers"][block]["net"]["norm"]
        state |= {f"{name}.{theirs}": running[ours] for theirs, ours in _STATISTICS.items()}
        state[f"{name}.num_batches_tracked"] = np.zeros((), np.int64)
    params, buffers = variables["params"], variables["buffers"]
    projection = params["projection"] if "projection" in params else buffers["projection"]
    model = {f"flow.{key}": tensor for key, tensor in state.items()}
    model[f"{_ADAPTOR}weight"] = np.asarray(projection["kernel"]).T[:, :, None, None]
    model[f"{_ADAPTOR}bias"] = projection["bias"]
    return lightning.written(model, encoder, _ENCODER)


def _add_norm(flow: Mapping[str, Any], norms: Flat, index: int) -> None:
    """Adds the BatchNorm of a block's net to its variables."""
    name, block = f"module_list.{index}.subnet.2", f"blocks_{index}"
    norms.pop(f"{name}.num_batches_tracked", None)
    try:
        flow["params"][block]["net"]["norm"] = freia.layer(norms, name)
        running = {o: norms.pop(f"{name}.{theirs}") for theirs, o in _STATISTICS.items()}
    except KeyError as missing:
        raise UserError(f"anomalib's flow has no tensor 'flow.{missing.args[0]}'") from None
    flow["buffers"][block]["net"] = {"norm": running}


DIALECT = Dialect(
    known_by="anomalib's Patchflow (state_dict with model.feature_adaptor.*)",
    matches=lightning.holds(r"feature_adaptor\."),
    read=read,
    write=write,
    unseen=_UNSEEN,
    encoder_settings=lightning.encoder_settings,
)
