"""The authors' code of SANFlow: decoders as of CFLOW-AD, and a network that predicts variances."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.weights import freia
from flowad_jax.weights.detectors import Dialect, TorchDetector, resnet_padding
from flowad_jax.weights.dialects import cflow
from flowad_jax.weights.state_dicts import (
    Flat,
    other_keys,
    refuse_rest,
    size,
    state_dict,
    state_dict_list,
)

WIDTH = 64  # channels of the network that predicts the variance
_NET = "SANFlow's variance network"
_CONVOLUTIONS = {
    "layer1": ("first", 3, WIDTH),
    "dncnn.0": ("conv0", WIDTH, WIDTH),
    "dncnn.3": ("conv1", WIDTH, WIDTH),
    "dncnn.6": ("conv2", WIDTH, WIDTH),
    "last_layer": ("last", WIDTH, 2),
}
_NORMS = {"dncnn.1": "norm0", "dncnn.4": "norm1", "dncnn.7": "norm2"}
_PARAMS = {"weight": "scale", "bias": "bias"}
_STATISTICS = {"running_mean": "mean", "running_var": "var"}


def read(content: Mapping[str, Any]) -> TorchDetector:
    """Converts a checkpoint."""
    decoders = state_dict_list(content, "decoder_state_dict")
    variance = state_dict(content, "variance")
    shapes = [freia.ChainShape.of(state) for state in decoders]
    own = ("decoder_state_dict", "encoder_state_dict", "variance")
    return TorchDetector(
        dialect="sanflow",
        method="sanflow",
        # It scores as the released code does.
        options=freia.common(shapes, "blocks", "condition", "permutation") | {"legacy": True},
        **freia.common(shapes, "clamp_kinds"),
        channels=tuple(shape.channels for shape in shapes),
        variables=detector(decoders, variance),
        size=size(*decoders, variance),
        encoder=state_dict(content, "encoder_state_dict", finite=False),
        left_out=other_keys(content, *own),
    )


def write(variables: Mapping[str, Any], encoder: Flat | None, indices: bool) -> dict[str, Any]:
    """The way back of `read`."""
    params, buffers = (variables[kind]["snet"] for kind in ("params", "buffers"))
    found = {
        f"{theirs}.weight": np.moveaxis(params[ours]["kernel"], (-1, -2), (0, 1))
        for theirs, (ours, _, _) in _CONVOLUTIONS.items()
    }
    for theirs, ours in _NORMS.items():
        found |= {f"{theirs}.{key}": params[ours][name] for key, name in _PARAMS.items()}
        found |= {f"{theirs}.{key}": buffers[ours][name] for key, name in _STATISTICS.items()}
        # Counts training steps where momentum is None, which it is not.
        found[f"{theirs}.num_batches_tracked"] = np.zeros((), np.int64)
    return {**cflow.write(variables, encoder, indices), "variance": found}


def detector(decoders: Sequence[Flat], variance: Flat) -> dict[str, Any]:
    """Converts one trained category.

    Args:
      decoders: state dict of the decoder of every scale, shallow first (``decoder_state_dict``).
      variance: state dict of the network that predicts the variance (``variance``).

    Returns:
      ``{"params": ..., "buffers": ...}`` of `flowad_jax.methods.sanflow`, of the form that has
      one variance for all scales.

    Raises:
      UserError: a tensor is missing, unknown or of another shape.
    """
    joined = freia.join_scales([freia.chain(state) for state in decoders])
    net = variance_net(variance)
    return {kind: {"snet": net[kind], **joined[kind]} for kind in ("params", "buffers")}


def variance_net(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Converts the network that predicts the variance; see `detector`."""
    tensors = {key: np.asarray(value) for key, value in state.items()}
    params: dict[str, Any] = {}
    for theirs, (ours, inputs, outputs) in _CONVOLUTIONS.items():
        kernel = _take(tensors, f"{theirs}.weight", (outputs, inputs, 3, 3))
        params[ours] = {"kernel": kernel.transpose(2, 3, 1, 0)}
    buffers: dict[str, Any] = {}
    for theirs, ours in _NORMS.items():
        params[ours], buffers[ours] = (
            {name: _take(tensors, f"{theirs}.{key}", (WIDTH,)) for key, name in names.items()}
            for names in (_PARAMS, _STATISTICS)
        )
        tensors.pop(f"{theirs}.num_batches_tracked", None)
    refuse_rest(tensors, _NET)
    return {"params": params, "buffers": buffers}


def _take(tensors: Flat, key: str, shape: tuple[int, ...]) -> np.ndarray:
    if key not in tensors:
        raise UserError(f"{_NET} has no tensor '{key}'")
    tensor = tensors.pop(key)
    if tensor.shape != shape:
        raise UserError(f"tensor '{key}' of {_NET} has shape {tensor.shape}, needed {shape}")
    return tensor


DIALECT = Dialect(
    known_by="SANFlow (the same and variance)",
    matches=lambda content: "decoder_state_dict" in content and "variance" in content,
    read=read,
    write=write,
    unseen=("method.clamp", "method.variance_clip"),
    encoder_settings=resnet_padding,
)
