"""From a workdir to the checkpoint that the authors' code loads."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flowad_jax.conversion.encoder import Say, written
from flowad_jax.conversion.settings import changed, scale_order
from flowad_jax.encoders import architecture
from flowad_jax.errors import UserError
from flowad_jax.training import state, workdir
from flowad_jax.training.model import Model, build_model
from flowad_jax.weights import layout, references, torch_writer

# Methods whose checkpoints hold the encoder, too.
_WITH_ENCODER = ("cflow", "sanflow")


def back(
    path: str | Path,
    output: str | None,
    say: Say = print,
    allow_import: Collection[str] = (),
) -> None:
    """Writes the detector of a workdir, trained here or converted, for the authors' code.

    Args:
      path: the workdir.
      output: ``.pt`` or ``.pth`` file; None to write nothing.
      say: takes lines for the user.
      allow_import: packages whose functions the stored config may name, as in
        ``"mine.flows:build"``; nothing is imported from elsewhere.

    Raises:
      UserError: there is no finished state, or the authors' code has no such detector.
    """
    if output and torch_writer.check_suffix(Path(output)) == ".safetensors":
        raise UserError(f"--output={output}: a detector is nested; name a .pt or .pth file")
    content, kind = _content(Path(path).absolute(), allow_import)
    if output:
        torch_writer.write(output, content)
    note = "before August 2023 (the one on PyPI)" if kind == "tanh" else "since August 2023"
    say(f"to be loaded beside FrEIA {note}; entries: {', '.join(list(content)[:4])}")
    say(written(output, f"{_bytes(content) / 1e6:.1f} MB"))


def _content(path: Path, allow_import: Collection[str]) -> tuple[dict[str, Any], str]:
    # Weights that were rounded for the device are no weights to hand out.
    stored = workdir.load_config(path, allow_import)
    config = changed(stored, **{"encoder.compute": "float32"})
    model = build_model(config)
    _check(config.method)
    trained, _, _ = state.of_workdir(model, path)
    variables = jax.device_get({"params": trained.params, "constants": trained.constants})
    spec, name = model.encoder.spec, config.method.name
    order = scale_order(name, spec, len(model.encoder.taps))
    kind = config.method.clamp_kind
    content = references.content(
        name,
        _in_their_order(variables, order),
        _encoder(model) if name in _WITH_ENCODER else None,
        indices=kind == "tanh_ratio",  # FrEIA has indices and this clamp
    )
    return content, kind


def _check(method: Any) -> None:
    """Refuses what only this package has."""
    if method.name == "sanflow" and method.per_scale and not method.legacy:
        raise UserError("method.per_scale=True: SANFlow's code has one variance for all scales")
    if method.name == "ssnf" and method.layout != "conv+attn":
        raise UserError(f"method.layout={method.layout}: SSNF's code has 'conv+attn' only")


def _in_their_order(variables: dict[str, Any], order: tuple[int, ...]) -> dict[str, Any]:
    renamed = {f"scale{ours}": f"scale{theirs}" for ours, theirs in enumerate(order)}
    return {
        kind: {renamed.get(group, group): tree for group, tree in groups.items()}
        for kind, groups in variables.items()
    }


def _encoder(model: Model) -> dict[str, np.ndarray]:
    """The encoder as far as the flows need it; the authors load it without being strict."""
    family = architecture.find(model.encoder.spec.name).family
    tensors = layout.to_torch_views(jax.device_get(model.encoder.variables), family.torch_key)
    return {key.removeprefix("features."): tensor for key, tensor in tensors.items()}


def _bytes(content: Any) -> int:
    if isinstance(content, dict | list | tuple):
        parts = content.values() if isinstance(content, dict) else content
        return sum(map(_bytes, parts))
    return getattr(content, "nbytes", 0)
