"""Detectors as the authors' code loads them: the way back of `detectors`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.weights import freia, msflow, sanflow, ssnf


def content(
    method: str,
    variables: Mapping[str, Any],
    encoder: Mapping[str, np.ndarray] | None = None,
    *,
    indices: bool = False,
) -> dict[str, Any]:
    """What the checkpoint of a detector holds, for `torch_writer.write`.

    Args:
      method: ``"cflow"``, ``"sanflow"``, ``"msflow"`` or ``"ssnf"``.
      variables: ``params`` and ``constants`` of the method, scales in the authors' order.
      encoder: state dict of the encoder, for CFLOW-AD and SANFlow.
      indices: whether orders of channels are stored as FrEIA does since June 2023, or as matrices.

    Raises:
      UserError: the authors' code has no such detector.
    """
    if method == "msflow":
        parallel, fusion = msflow.state_dicts(variables, indices)
        return {"epoch": 0, "fusion_flow": fusion, "parallel_flows": parallel}
    scales = _scales(variables)
    if method == "ssnf":
        if len(scales) != 1:
            raise UserError(f"SSNF's code has one scale, this detector has {len(scales)}")
        return dict(ssnf.state_dict(scales[0], indices))
    found: dict[str, Any] = {
        "encoder_state_dict": dict(encoder or {}),
        "decoder_state_dict": [freia.state_dict(scale, indices=indices) for scale in scales],
    }
    if method == "sanflow":
        net = {kind: variables[kind]["snet"] for kind in ("params", "constants")}
        found["variance"] = sanflow.variance_state(net)
    return found


def _scales(variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = [name for name in variables["params"] if name.startswith("scale")]
    return [
        {kind: variables[kind][f"scale{index}"] for kind in ("params", "constants")}
        for index in range(len(names))
    ]
