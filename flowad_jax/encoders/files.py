"""The weights of an encoder out of a file: ours as they are, PyTorch's converted."""

import re
from pathlib import Path

import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict

from flowad_jax.encoders.architecture import Architecture, complete_shapes
from flowad_jax.errors import UserError
from flowad_jax.types import Tree
from flowad_jax.weights import layout, store, torch_file, wrappers

EXPORTS = ()  # nothing in here is the name of an encoder


def read(architecture: Architecture, path: Path) -> Tree:
    """The complete network from a file of either kind; a card tells ours from PyTorch's.

    Raises:
      UserError: the file is damaged or of another architecture.
    """
    return stored(architecture, path) if _has_card(path) else converted(architecture, path)


def stored(architecture: Architecture, path: Path) -> Tree:
    """The complete network from a file of ours.

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
    """The complete network from a file of PyTorch's.

    Raises:
      UserError: the file is damaged or of another architecture.
    """
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
    beyond = (
        [] if deepest is None else layout.rules(complete_shapes(architecture), family.torch_key)
    )
    return layout.to_flax(
        tensors,
        complete_shapes(architecture, deepest),
        family.torch_key,
        [*family.IGNORABLE, *(re.escape(rule.key) for rule in beyond)],
        source,
    )


def torch_tensors(architecture: Architecture, path: Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch file under the names that the family's ``torch_key`` gives.

    Raises:
      UserError: the file is damaged, or its name has another hash than its content.
    """
    store.check_name_hash(path)
    return renamed(architecture, torch_file.state_dict(path))


def renamed(architecture: Architecture, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors without a wrapper's names, and under one of several published namings."""
    from_dialect = getattr(architecture.family, "from_dialect", dict)
    return from_dialect(wrappers.unwrapped(tensors))


def _has_card(path: Path) -> bool:
    if path.suffix != ".safetensors":
        return path.suffix == ".npz"
    with torch_file.blame(path), safetensors.safe_open(path, framework="np") as file:
        return "card" in (file.metadata() or {})


def pruned(variables: Tree, target: Tree, source: str) -> Tree:
    """Leaves out what lies behind the deepest tap, so that it takes no device memory."""
    flat = flatten_dict(variables)
    needed = flatten_dict(target)
    if missing := needed.keys() - flat.keys():
        first = "/".join(min(missing))
        raise UserError(f"{source}: was converted from a shorter encoder, it has no {first}")
    return unflatten_dict({path: flat[path] for path in needed})
