"""From a checkpoint of an encoder to a weight file, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowad_jax.encoders.load import convert_checkpoint
from flowad_jax.encoders.weight_files import export_checkpoint
from flowad_jax.weights import store, torch_writer

Say = Callable[[str], None]


def convert(
    arch: str,
    checkpoint: str,
    output: str | None,
    verify: Callable[[Any], dict[str, Any]] | None = None,
    say: Say = print,
) -> None:
    """Converts a PyTorch file and says what came out; see `convert_checkpoint`.

    Args:
      arch: the encoder's name.
      checkpoint: the file.
      output: ``.safetensors`` or ``.npz`` file to write; None to write nothing.
      verify: compares with PyTorch and returns what the card says about it, or raises.
      say: takes lines for the user.
    """
    if output:
        store.check_suffix(Path(output))
    variables, card = convert_checkpoint(arch, checkpoint)
    say(json.dumps(card, indent=2))
    if verify is not None:
        card["verified"] = verify(variables)
    if output:
        store.save(output, variables, card)
    sizes, source = card["sizes"], card["source"]
    what = f"{sizes['tensors']} tensors, {sizes['parameters']:,} parameters, "
    megabytes = f"{sizes['bytes'] / 1e6:.1f} MB, from {source['bytes'] / 1e6:.1f} MB"
    say(summary(output, what + megabytes))


def export(arch: str, checkpoint: str, output: str | None, say: Say = print) -> None:
    """Converts a file of ours back and says what PyTorch will not find in it.

    ``output`` is a ``.pth``, ``.pt`` or ``.safetensors`` file; None: nothing is written.
    """
    if output:
        torch_writer.check_suffix(Path(output))
    tensors, left_out = export_checkpoint(arch, checkpoint)
    if output:
        torch_writer.write(output, tensors)
    say(f"left out, as no tap needs it: {', '.join(left_out)}")
    size = sum(tensor.nbytes for tensor in tensors.values())
    say(summary(output, f"{len(tensors)} tensors, {size / 1e6:.1f} MB"))


def summary(output: str | None, what: str) -> str:
    """The last line of a conversion."""
    return f"wrote {output}: {what}" if output else f"dry run, nothing was written: {what}"
