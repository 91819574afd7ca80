"""From a workdir to the checkpoint that the authors' code loads."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import jax

from flowad_jax.conversion.encoder import Say, summary
from flowad_jax.conversion.settings import changed, rename_scales, scale_order
from flowad_jax.detector import state, workdir
from flowad_jax.detector.model import build_model
from flowad_jax.encoders import architecture
from flowad_jax.errors import UserError
from flowad_jax.weights import layout, torch_writer
from flowad_jax.weights.detectors import dialects


def export(
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
      allow_import: packages whose functions the stored config may name.

    Raises:
      UserError: there is no finished state, or the authors' code has no such detector.
    """
    if output and torch_writer.check_suffix(Path(output)) == ".safetensors":
        raise UserError(f"--output={output}: a detector is nested; name a .pt or .pth file")
    path = Path(path).absolute()
    stored = workdir.load_config(path, allow_import)
    # Weights that were rounded for the device are no weights to hand out.
    config = changed(stored, **{"encoder.compute": "float32"})
    model, method = build_model(config), config.method
    dialect = dialects().get(method.name)
    if dialect is None or dialect.write is None:
        raise UserError(f"method.name='{method.name}': no code in PyTorch has such a detector")
    if config.train.whiten:
        raise UserError("train.whiten=True: no code in PyTorch whitens features first")
    if config.train.ensemble > 1:
        raise UserError(f"train.ensemble={config.train.ensemble}: no code in PyTorch has members")
    if method.clamp_kind == "volume_preserving":
        raise UserError("method.clamp_kind=volume_preserving: no version of FrEIA has it")
    if method.name == "sanflow" and method.per_scale and not method.legacy:
        raise UserError("method.per_scale=True: SANFlow's code has one variance for all scales")
    if method.name == "ssnf" and method.layout != "conv+attn":
        raise UserError(f"method.layout={method.layout}: SSNF's code has 'conv+attn' only")
    trained, _, _ = state.of_workdir(model, path)
    variables = jax.device_get({"params": trained.params, "buffers": trained.buffers})
    # Of the encoder as far as the flows need it; the authors load it without being strict.
    torch_key = architecture.find(model.encoder.spec.name).family.torch_key
    tensors = layout.to_torch(jax.device_get(model.encoder.variables), torch_key)
    encoder = {key.removeprefix("features."): tensor for key, tensor in tensors.items()}
    order = scale_order(method.name, model.encoder.spec, len(model.encoder.taps))
    indices = method.clamp_kind == "tanh_ratio"  # FrEIA has indices and this clamp
    content = dialect.write(rename_scales(variables, dict(enumerate(order))), encoder, indices)
    if output:
        torch_writer.write(output, content)
    note = "since August 2023" if indices else "before August 2023 (the one on PyPI)"
    say(f"to be loaded beside FrEIA {note}; entries: {', '.join(list(content)[:4])}")
    size = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(content))
    say(summary(output, f"{size / 1e6:.1f} MB"))
