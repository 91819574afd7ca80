"""The weights of an encoder out of a file, PyTorch's or ours, and back into PyTorch's form."""

import re
from pathlib import Path

import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict

from flowad_jax.encoders.architecture import Architecture, complete_shapes, find, rules
from flowad_jax.errors import UserError
from flowad_jax.types import Tree
from flowad_jax.weights import layout, state_dicts, store, torch_file


def read(architecture: Architecture, path: Path) -> Tree:
    """Returns the complete network from a file of either kind; a card tells ours from PyTorch's."""
    ours = path.suffix == ".npz"
    if path.suffix == ".safetensors":
        with torch_file.blame(path), safetensors.safe_open(path, framework="np") as file:
            ours = "card" in (file.metadata() or {})
    return stored(architecture, path) if ours else converted(architecture, path)


def stored(architecture: Architecture, path: Path) -> Tree:
    """Returns the complete network from a file of ours.

    Raises:
      UserError: the file is damaged, has no card, or is of another architecture.
    """
    variables, card = store.load(path)
    stated = card.get("architecture")
    if stated != architecture.spec.name:
        raise UserError(f"{path}: holds weights of '{stated}', not of '{architecture.spec.name}'")
    deepest = card.get("deepest_tap")
    if deepest is not None and deepest >= len(architecture.spec.channels):
        raise UserError(f"the card in {path}: deepest_tap={deepest} is no tap of '{stated}'")
    layout.require_shapes(variables, complete_shapes(architecture, deepest), path.name)
    return variables


def converted(architecture: Architecture, path: Path) -> Tree:
    """Returns the complete network from a file of PyTorch's, or raises a `UserError`."""
    return convert_tensors(architecture, torch_tensors(architecture, path), path.name)


def convert_tensors(
    architecture: Architecture,
    tensors: dict[str, np.ndarray],
    source: str,
    deepest: int | None = None,
) -> Tree:
    """Converts the state dict of an encoder.

    Args:
      architecture: what it is of.
      tensors: under the names that the family's ``torch_key`` gives, see `renamed`.
      source: what they come from, for messages.
      deepest: the feature map that the tensors lead to; None for a complete network. The card of
        a file with less than that has it as ``deepest_tap``.

    Raises:
      UserError: something is missing, unknown or of another shape.
    """
    family = architecture.family
    beyond = [] if deepest is None else [re.escape(rule.key) for rule in rules(architecture)]
    target = complete_shapes(architecture, deepest)
    return layout.to_flax(tensors, target, family.torch_key, [*family.IGNORABLE, *beyond], source)


def torch_tensors(architecture: Architecture, path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a PyTorch file, whose hash has to be true, named by ``torch_key``."""
    store.check_name_hash(path)
    return renamed(architecture, torch_file.state_dict(path))


def renamed(architecture: Architecture, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the same tensors without a wrapper's names, and in the family's one naming."""
    from_dialect = getattr(architecture.family, "from_dialect", dict)
    return from_dialect(state_dicts.unwrapped(tensors))


def pruned(variables: Tree, target: Tree, source: str) -> Tree:
    """Leaves out what lies behind the deepest tap, so that it takes no device memory."""
    flat, needed = flatten_dict(variables), flatten_dict(target)
    if missing := needed.keys() - flat.keys():
        first = "/".join(min(missing))
        raise UserError(f"{source}: was converted from a shorter encoder, it has no {first}")
    return unflatten_dict({path: flat[path] for path in needed})


def export_checkpoint(arch: str, path: str | Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Undoes `load.convert_checkpoint`: a state dict from a file of ours.

    A file of ours lacks what taps do not need. ``load_state_dict(strict=False)`` reports the head
    as missing; the counters ``num_batches_tracked`` it sets to 0, also with ``strict=True``,
    since the file does not state a version of BatchNorm's.

    Returns:
      ``{torch key: tensor}``, tensors as views, and the patterns of keys that are left out.

    Raises:
      UserError: the name is unknown, the file is damaged, not ours or of another architecture.
    """
    architecture = find(arch)
    tensors = layout.to_torch(stored(architecture, Path(path)), architecture.family.torch_key)
    return tensors, tuple(architecture.family.IGNORABLE)


def conversion_table(arch: str, checkpoint: str | Path | None = None) -> str:
    """Returns the table of `rules` as text, marked with what a PyTorch file holds, if given.

    Raises:
      UserError: the name is unknown or the file cannot be read.
    """
    architecture = find(arch)
    flat = None if checkpoint is None else torch_tensors(architecture, Path(checkpoint))
    return layout.table(rules(architecture), architecture.family.IGNORABLE, flat)
