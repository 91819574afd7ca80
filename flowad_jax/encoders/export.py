"""What the converter tells and gives back: the table of a conversion, and PyTorch's tensors."""

import re
from pathlib import Path

import numpy as np

from flowad_jax.encoders.architecture import Architecture, complete_shapes, find
from flowad_jax.encoders.files import stored, torch_tensors
from flowad_jax.weights import explain, layout

EXPORTS = ()  # nothing in here is the name of an encoder


def export_checkpoint(arch: str, path: str | Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The way back of `load.convert_checkpoint`: a state dict from a file of ours.

    A file of ours lacks what taps do not need. ``load_state_dict(strict=False)`` reports the head
    as missing; the counters ``num_batches_tracked`` it sets to 0, also with ``strict=True``,
    since the file does not state a version of BatchNorm's.

    Args:
      arch: the encoder's name, as for `load.load`.
      path: a ``.safetensors`` or ``.npz`` file that was written by `store.save`.

    Returns:
      ``{torch key: tensor}``, tensors as views, and the patterns of keys that are left out.

    Raises:
      UserError: the name is unknown, the file is damaged, not ours or of another architecture.
    """
    architecture = find(arch)
    variables = stored(architecture, Path(path))
    tensors = layout.to_torch_views(variables, architecture.family.torch_key)
    return tensors, tuple(architecture.family.IGNORABLE)


def explained(arch: str, checkpoint: str | Path | None = None) -> str:
    """The table of `layout.rules` as text, marked with what a PyTorch file holds, if one is given.

    Raises:
      UserError: the name is unknown or the file cannot be read.
    """
    architecture = find(arch)
    flat = None if checkpoint is None else torch_tensors(architecture, Path(checkpoint))
    return explain.table(rules(architecture), architecture.family.IGNORABLE, flat)


def rules(architecture: Architecture) -> list[layout.Rule]:
    """The conversion table of the complete network."""
    return layout.rules(complete_shapes(architecture), architecture.family.torch_key)


def left_out(architecture: Architecture, key: str) -> bool:
    """Whether a file of ours has nothing for a torch key, as no tap needs it."""
    return any(re.fullmatch(pattern, key) for pattern in architecture.family.IGNORABLE)
