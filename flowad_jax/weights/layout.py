"""Moves tensors between PyTorch's names and layouts and ours, completely or not at all.

An encoder family states its naming once, as ``torch_key(path) -> key``; the table of `rules` that
follows from it drives the conversion in both directions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from flowad_jax.errors import UserError, one_line, printable
from flowad_jax.weights.foreign import shown

MAX_NAME = 200  # letters of a tensor's name in a table

TorchKey = Callable[[tuple[str, ...]], str]


class ConversionError(UserError):
    """A file and a network do not fit.

    Attributes:
      missing: our variables without a tensor in the file, as ``"variable <- torch key"``.
      mismatched: tensors of another shape or kind of number than their variable.
      unused: torch keys that no variable uses and that may not be ignored.
    """

    def __init__(
        self,
        source: str,
        missing: list[str],
        mismatched: list[str],
        unused: list[str],
        advice: str = "name the architecture it was saved from",
    ):
        self.missing = missing
        self.mismatched = mismatched
        self.unused = unused
        counts = (
            f"{len(missing)} variables without a tensor{_first(missing)}, "
            f"{len(mismatched)} tensors of another shape{_first(mismatched)}, "
            f"{len(unused)} tensors unused{_first(unused)}"
        )
        super().__init__(f"{source} does not fit the network: {counts}; {advice}")

    def lists(self) -> str:
        """All three lists in full, one entry per line."""
        named = {
            "variables without a tensor": self.missing,
            "tensors of another shape": self.mismatched,
            "tensors unused": self.unused,
        }
        return "\n".join(
            "\n  ".join([f"{len(entries)} {name}:", *map(one_line, entries)])
            for name, entries in named.items()
            if entries
        )


def _first(entries: list[str], count: int = 3) -> str:
    if not entries:
        return ""
    more = ", ..." if len(entries) > count else ""
    return f" ({', '.join(printable(entry)[:120] for entry in entries[:count])}{more})"


class Rule(NamedTuple):
    """One line of the conversion table.

    Attributes:
      path: our variable, e.g. ``("params", "layer1_0", "conv1", "kernel")``.
      key: its torch name, e.g. ``"layer1.0.conv1.weight"``.
      shape: in our layout.
      torch_shape: in torch's.
      dtype: ours.
    """

    path: tuple[str, ...]
    key: str
    shape: tuple[int, ...]
    torch_shape: tuple[int, ...]
    dtype: np.dtype

    def mismatch(self, tensor: np.ndarray) -> str:
        """What keeps a tensor from becoming the variable, or an empty string."""
        if tensor.shape == self.torch_shape and np.can_cast(tensor.dtype, self.dtype, "same_kind"):
            return ""
        needed = f"needed {self.torch_shape} {self.dtype}"
        return f"{self.key}: {tensor.shape} {tensor.dtype}, {needed}"


def rules(target: Any, torch_key: TorchKey) -> list[Rule]:
    """The conversion table of a network; ``target`` has arrays or `jax.ShapeDtypeStruct`."""
    table = []
    for path, leaf in flatten_dict(target).items():
        shape = leaf.shape
        swapped = (shape[-1], shape[-2], *shape[:-2]) if _is_kernel(path, len(shape)) else shape
        table.append(Rule(path, torch_key(path), shape, swapped, leaf.dtype))
    return table


def to_flax(
    flat: Mapping[str, np.ndarray],
    target: Any,
    torch_key: TorchKey,
    ignorable: Sequence[str],
    source: str,
) -> dict[str, Any]:
    """Converts a torch state dict; every tensor has to be used and every variable set.

    Args:
      flat: ``{torch key: tensor}``.
      target: variables as `jax.ShapeDtypeStruct`.
      torch_key: the torch name of a variable path.
      ignorable: regular expressions of torch keys that may stay unused.
      source: what the tensors come from, for messages.

    Returns:
      Variables shaped like ``target``: views of the tensors where the dtype fits, so that a large
      file is in memory once.

    Raises:
      ConversionError: anything is missing, left over or of another shape.
      UserError: a tensor holds what `require_finite` refuses.
    """
    table = rules(target, torch_key)
    missing = [f"{'/'.join(rule.path)} <- {rule.key}" for rule in table if rule.key not in flat]
    mismatched = [rule.mismatch(flat[rule.key]) for rule in table if rule.key in flat]
    mismatched = [text for text in mismatched if text]
    _, unused = _left_over(table, ignorable, flat)
    if missing or mismatched or unused:
        raise ConversionError(source, missing, mismatched, unused)
    variables = {}
    with np.errstate(over="ignore"):  # what is too large for a type becomes infinite
        for rule in table:
            tensor = flat[rule.key]
            if _is_kernel(rule.path, tensor.ndim):
                tensor = np.moveaxis(tensor, (0, 1), (-1, -2))
            variables[rule.path] = np.asarray(tensor, rule.dtype)
    require_finite({rule.key: variables[rule.path] for rule in table}, source)
    return unflatten_dict(variables)


def to_torch(variables: Any, torch_key: TorchKey) -> dict[str, np.ndarray]:
    """The inverse of `to_flax`: ``{torch key: tensor}`` as views, without ignorable tensors."""
    found = {}
    for path, leaf in flatten_dict(variables).items():
        tensor = np.asarray(leaf)
        if _is_kernel(path, tensor.ndim):
            tensor = np.moveaxis(tensor, (-1, -2), (0, 1))
        found[torch_key(path)] = tensor
    return found


def _is_kernel(path: tuple[str, ...], rank: int) -> bool:
    """Torch keeps kernels as (out, in, *window), Flax as (*window, in, out)."""
    return path[-1] == "kernel" and rank >= 2


def _left_over(
    table: Sequence[Rule], ignorable: Sequence[str], flat: Mapping[str, np.ndarray]
) -> tuple[list[str], list[str]]:
    """Keys without a rule: those that may be ignored, and the others."""
    used = {rule.key for rule in table}
    ignored = re.compile("|".join(f"(?:{pattern})" for pattern in ignorable) or r"(?!)")
    rest = [key for key in flat if key not in used]
    matching = {key for key in rest if ignored.fullmatch(key)}
    return [key for key in rest if key in matching], [key for key in rest if key not in matching]


def require_finite(tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Raises a UserError for the first tensor that is not finite, or a negative variance."""
    for name, tensor in tensors.items():
        wrong = ""
        if tensor.size == 0 or tensor.dtype.kind in "biu":
            continue
        with np.errstate(invalid="ignore"):
            low, high = np.min(tensor), np.max(tensor)  # NaN if any value is
        if tensor.dtype.kind == "c":
            wrong = "complex numbers"
        elif not (np.isfinite(low) and np.isfinite(high)):
            wrong = "NaN or infinite values"
        elif low < 0 and name.endswith(("running_var", "/var")):
            wrong = "negative variances"
        if wrong:
            raise UserError(
                f"{source}: the tensor {shown(name)} holds {wrong}, so nothing that it computes "
                "means anything: fetch the file again, or take one from before training failed"
            )


def require_shapes(variables: Any, target: Any, source: str, **options: str) -> None:
    """Raises a ConversionError, with these options, if names or shapes differ from the target."""
    found, needed = (
        {path: leaf.shape for path, leaf in flatten_dict(tree, sep="/").items()}
        for tree in (variables, target)
    )
    if found != needed:
        raise ConversionError(
            source,
            missing=sorted(needed.keys() - found.keys()),
            mismatched=[
                f"{path}: {found[path]}, needed {shape}"
                for path, shape in needed.items()
                if found.get(path, shape) != shape
            ],
            unused=sorted(found.keys() - needed.keys()),
            **options,
        )


def cast(variables: Any, target: Any, source: str) -> dict[str, Any]:
    """The variables in the target's dtypes, as views where these fit; see `require_finite`."""
    wanted = flatten_dict(target, sep="/")
    with np.errstate(over="ignore"):
        found = {
            path: np.asarray(leaf, wanted[path].dtype)
            for path, leaf in flatten_dict(variables, sep="/").items()
        }
    require_finite(found, source)
    return unflatten_dict(found, sep="/")


def table(
    rows: Sequence[Rule], ignorable: Sequence[str], flat: Mapping[str, np.ndarray] | None = None
) -> str:
    """The conversion as text; with the tensors of a file, each line says what becomes of one."""
    cells = [["our variable", "our shape", "torch key", "torch shape"]]
    cells += [["/".join(r.path), str(r.shape), r.key, str(r.torch_shape)] for r in rows]
    lines = ["", "tensors that may stay unused, as regular expressions:"]
    lines += [f"  {pattern}" for pattern in ignorable] or ["  none"]
    if flat is not None:
        for line, mark in zip(cells, ["in the file", *(_mark(r, flat) for r in rows)], strict=True):
            line.append(mark)
        for keys, fate in zip(
            _left_over(rows, ignorable, flat),
            ("ignored:", "of no use, which stops a conversion:"),
            strict=True,
        ):
            lines += [""] * (fate == "ignored:") + [f"{len(keys)} tensors of the file are {fate}"]
            lines += [f"  {one_line(key, MAX_NAME)}" for key in keys]
    return "\n".join(aligned(cells) + lines)


def _mark(rule: Rule, flat: Mapping[str, np.ndarray]) -> str:
    if rule.key not in flat:
        return "missing"
    tensor = flat[rule.key]
    return f"{tensor.shape} {tensor.dtype}: does not fit" if rule.mismatch(tensor) else "yes"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which the columns of a table stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
