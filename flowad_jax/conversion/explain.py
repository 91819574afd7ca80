"""The table of a detector's conversion: what becomes of every tensor of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from flowad_jax.errors import one_line
from flowad_jax.weights import detectors, torch_file
from flowad_jax.weights.layout import MAX_NAME, aligned

# What becomes of tensors that are not variables as they are, by the end of their name.
_OTHERWISE = {
    **dict.fromkeys(("w_perm", "w"), "permutation, as indices where it only reorders"),
    "perm": "permutation, as indices",
    **dict.fromkeys(("w_perm_inv", "w_inv", "perm_inv"), "not kept: it is the inverse"),
    "num_batches_tracked": "not kept: a counter of training",
}


def explained(checkpoint: str | Path) -> str:
    """What a checkpoint is, and where each of its tensors goes, as text.

    Raises:
      UserError: it cannot be read, or is no detector that we know.
    """
    path = Path(checkpoint)
    content = torch_file.read(path)
    found = detectors.detect_format(content, path.name)
    variables = flatten_dict(found.variables, sep="/")
    after = sum(leaf.nbytes for leaf in variables.values())
    lines = [
        f"{path.name}: a detector of {found.method}, dialect {found.dialect}",
        f"maps of {', '.join(map(str, found.channels))} channels; "
        + ", ".join(f"{name} {value}" for name, value in found.options.items()),
        f"clamp: {' or '.join(found.clamp_kinds)}",
        f"flows: {found.size / 1e6:.1f} MB in the file, {after / 1e6:.1f} MB converted",
    ]
    if found.encoder is not None:
        lines.append(f"encoder: {len(found.encoder)} tensors; see --explain --arch=NAME")
    if found.left_out:
        lines.append(f"left out: {', '.join(found.left_out)}")
    # Variables are views of the file's tensors: the same memory tells which is which.
    ours = {_address(leaf): (name, str(leaf.shape)) for name, leaf in variables.items()}
    inside_encoder = {_address(leaf) for leaf in (found.encoder or {}).values()}
    rows: list[tuple[str, ...]] = [("torch key", "torch shape", "our variable", "our shape")]
    for name, leaf in _tensors(content, "", set()):
        address, last = _address(leaf), name.rpartition(".")[2]
        if address in inside_encoder or name.startswith("optimizer"):
            continue
        rest = (_OTHERWISE.get(last, "left out"), "")
        rows.append((one_line(name, MAX_NAME), str(leaf.shape), *ours.get(address, rest)))
    return "\n".join([*map(one_line, lines), "", *aligned(rows)])


def _tensors(content: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors that stand where dialects have some: two levels deep.

    Each container is looked at once: a file may hold one a million times, or in itself.
    """
    seen.add(id(content))
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in entries:
        name = f"{prefix}{key}"
        if isinstance(value, np.ndarray):
            yield name, value
            continue
        inner = isinstance(value, dict | list | tuple) and id(value) not in seen
        if inner and prefix.count(" ") < 2:
            yield from _tensors(value, f"{name} ", seen)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
