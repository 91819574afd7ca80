"""The README's table of encoders, from their specs and from docs/encoder_parity.json.

    python -m benchmarks.encoder_table
    python -m benchmarks.encoder_table --write

The first command prints the table, the second puts it into README.md, between two comments.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import _common
from flowad_jax import files, lookup
from flowad_jax.arguments import Parser
from flowad_jax.encoders.architecture import PACKAGE, Architecture, complete_shapes, find
from flowad_jax.encoders.load import in_package
from flowad_jax.errors import UserError
from flowad_jax.types import Published

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PARITY = ROOT / "docs" / "encoder_parity.json"
BEGIN = "<!-- encoders: python -m benchmarks.encoder_table --write -->"
END = "<!-- /encoders -->"
HEADER = ("encoder", "taps", "channels", "strides", "parameters", "weights", "licence", "parity")
RIGHT = ("parameters",)


def published() -> list[str]:
    """Names of the encoders with published weights, by family, in the order of its ``SPECS``."""
    names = (name for name in lookup.choices(PACKAGE) if find(name).spec.weights)
    return sorted(names, key=_place)


def table(measured: dict[str, dict[str, Any]]) -> str:
    """The table in Markdown.

    Args:
      measured: what `encoder_parity.read` returns.
    """
    rule = ("---:" if column in RIGHT else "---" for column in HEADER)
    rows = (_row(name, measured.get(name, {})) for name in published())
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (HEADER, rule, *rows))


def filled(readme: str, rows: str) -> str:
    """The README with another table.

    Raises:
      UserError: one of the comments around the table is missing.
    """
    return _common.between(readme, BEGIN, END, rows)


def runs(numbers: Iterable[int]) -> str:
    """``"16, 24 x 2"`` for 16, 24, 24."""
    counted = ((number, len(list(alike))) for number, alike in itertools.groupby(numbers))
    return ", ".join(f"{number} x {n}" if n > 1 else f"{number}" for number, n in counted)


def parameters(encoder: Architecture) -> int:
    """Of all that any tap needs; statistics of BatchNorm are none."""
    leaves = _leaves(complete_shapes(encoder)["params"])
    return sum(math.prod(leaf.shape) for leaf in leaves)


def _place(name: str) -> tuple[str, int]:
    family, _, variant = name.partition(".")
    return family, list(find(name).family.SPECS).index(variant)


def _row(name: str, measured: dict[str, Any]) -> Iterator[str]:
    encoder = find(name)
    spec = encoder.spec
    yield f"`{name}`"
    yield f"0 to {len(spec.channels) - 1}"
    yield runs(spec.channels)
    yield runs(spec.strides)
    # Tracing all networks takes longer than a test may.
    yield f"{(measured.get('parameters') or parameters(encoder)) / 1e6:.1f} M"
    yield _file(spec.weights)
    yield spec.weights.licence
    yield _parity(measured)


def _file(weights: Published) -> str:
    """The file, linked to where it comes from, or the package that brings it."""
    if in_package(weights):
        return f"pip: {weights.source.rpartition(' ')[2]}, {weights.megabytes:.1f} MB"
    return f"[{weights.file}]({weights.source}), {weights.megabytes:.1f} MB"


def _parity(measured: dict[str, Any]) -> str:
    if "worst" not in measured:
        return "not measured"
    figure = f"{measured['worst']:.1e}".replace("e-0", "e-")
    return f"{figure}, {measured['layers']} layers"


def _leaves(tree: Any) -> Iterator[Any]:
    for value in tree.values():
        yield from _leaves(value) if isinstance(value, dict) else (value,)


def main() -> None:
    """Prints the table or writes it."""
    from benchmarks.encoder_parity import read

    parser = Parser("python -m benchmarks.encoder_table", __doc__)
    parser.add_argument("--write", action="store_true", help="put it into README.md")
    options = parser.parse_args()
    try:
        rows = table(read(PARITY))
        if options.write:
            files.write_text(README, filled(README.read_text(encoding="utf-8"), rows))
        else:
            print(rows)
    except UserError as error:
        parser.fail(error)


if __name__ == "__main__":
    main()
