"""The table of a conversion as text, with or without a file that it would be applied to."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from flowad_jax.errors import one_line
from flowad_jax.weights.layout import Rule, mismatch

MAX_NAME = 200  # letters of a tensor's name in a table


def table(
    rules: Sequence[Rule], ignorable: Sequence[str], flat: Mapping[str, np.ndarray] | None = None
) -> str:
    """Says where every variable comes from and which tensors may stay unused.

    Args:
      rules: what `layout.rules` returns.
      ignorable: regular expressions of torch keys that may stay unused.
      flat: the tensors of a file, which is then marked line by line.
    """
    head: tuple[str, ...] = ("our variable", "our shape", "torch key", "torch shape")
    rows: list[tuple[str, ...]] = [
        ("/".join(rule.path), str(rule.shape), rule.key, str(rule.torch_shape)) for rule in rules
    ]
    if flat is not None:
        head = (*head, "in the file")
        rows = [(*row, _mark(rule, flat)) for row, rule in zip(rows, rules, strict=True)]
    lines = aligned([head, *rows])
    lines += ["", "tensors that may stay unused, as regular expressions:"]
    lines += [f"  {pattern}" for pattern in ignorable] or ["  none"]
    if flat is not None:
        lines += ["", *_left_over(rules, ignorable, flat)]
    return "\n".join(lines)


def _mark(rule: Rule, flat: Mapping[str, np.ndarray]) -> str:
    if rule.key not in flat:
        return "missing"
    tensor = flat[rule.key]
    return f"{tensor.shape} {tensor.dtype}: does not fit" if mismatch(rule, tensor) else "yes"


def _left_over(
    rules: Sequence[Rule], ignorable: Sequence[str], flat: Mapping[str, np.ndarray]
) -> list[str]:
    used = {rule.key for rule in rules}
    rest = [key for key in flat if key not in used]
    ignored = [key for key in rest if any(re.fullmatch(p, key) for p in ignorable)]
    unknown = [key for key in rest if key not in set(ignored)]
    return [
        f"{len(ignored)} tensors of the file are ignored:",
        *(f"  {one_line(key, MAX_NAME)}" for key in ignored),
        f"{len(unknown)} tensors of the file are of no use, which stops a conversion:",
        *(f"  {one_line(key, MAX_NAME)}" for key in unknown),
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which the columns of a table stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
