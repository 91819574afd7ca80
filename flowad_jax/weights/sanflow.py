"""Checkpoints of the SANFlow reference become variables of our method, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowad_jax.errors import UserError, printable
from flowad_jax.weights import freia

Flat = Mapping[str, np.ndarray]

WIDTH = 64  # channels of the network that predicts the variance
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


def detector(decoders: Sequence[Flat], variance: Flat) -> dict[str, dict]:
    """Converts one trained category.

    A checkpoint whose permutations are index vectors is of a FrEIA since August 2023: give the
    method ``clamp_kind="tanh_ratio"``. Dense matrices mean ``permutation="soft"``.

    Args:
      decoders: state dict of the decoder of every scale, shallow first (``decoder_state_dict``).
      variance: state dict of the network that predicts the variance (``variance``).

    Returns:
      ``{"params": ..., "constants": ...}`` of `flowad_jax.methods.sanflow`, of the form that has
      one variance for all scales.

    Raises:
      UserError: a tensor is missing, unknown or of another shape.
    """
    scales = [freia.chain(state) for state in decoders]
    net = variance_net(variance)
    return {
        kind: {"snet": net[kind], **{f"scale{i}": scale[kind] for i, scale in enumerate(scales)}}
        for kind in ("params", "constants")
    }


def variance_net(state_dict: Flat) -> dict[str, dict]:
    """Converts the network that predicts the variance; see `detector`."""
    tensors = {key: np.asarray(value) for key, value in state_dict.items()}
    params: dict[str, dict] = {}
    for theirs, (ours, inputs, outputs) in _CONVOLUTIONS.items():
        kernel = _take(tensors, f"{theirs}.weight", (outputs, inputs, 3, 3))
        params[ours] = {"kernel": kernel.transpose(2, 3, 1, 0)}
    constants: dict[str, dict] = {}
    for theirs, ours in _NORMS.items():
        params[ours], constants[ours] = (
            {name: _take(tensors, f"{theirs}.{key}", (WIDTH,)) for key, name in names.items()}
            for names in (_PARAMS, _STATISTICS)
        )
        tensors.pop(f"{theirs}.num_batches_tracked", None)
    if tensors:
        unknown = ", ".join(map(printable, sorted(tensors)))
        raise UserError(f"SANFlow's variance network has unknown tensors: {unknown}")
    return {"params": params, "constants": constants}


def variance_state(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The way back of `variance_net`."""
    params, constants = variables["params"], variables["constants"]
    found = {
        f"{theirs}.weight": np.moveaxis(params[ours]["kernel"], (-1, -2), (0, 1))
        for theirs, (ours, _, _) in _CONVOLUTIONS.items()
    }
    for theirs, ours in _NORMS.items():
        found |= {f"{theirs}.{key}": params[ours][name] for key, name in _PARAMS.items()}
        found |= {f"{theirs}.{key}": constants[ours][name] for key, name in _STATISTICS.items()}
        # Counts training steps where momentum is None, which it is not.
        found[f"{theirs}.num_batches_tracked"] = np.zeros((), np.int64)
    return found


def _take(tensors: dict[str, np.ndarray], key: str, shape: tuple[int, ...]) -> np.ndarray:
    if key not in tensors:
        raise UserError(f"SANFlow's variance network has no tensor '{key}'")
    tensor = tensors.pop(key)
    if tensor.shape != shape:
        raise UserError(
            f"tensor '{key}' of SANFlow's variance network has shape {tensor.shape}, needed {shape}"
        )
    return tensor
