"""The table of encoders in the docs, from their specs and from docs/encoder_parity.json.

    python -m benchmarks.encoder_table
    python -m benchmarks.encoder_table --write

The first command prints the table, the second puts it between two comments of
docs/reference/encoders.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from benchmarks import _common
from flowad_jax import files, lookup
from flowad_jax.arguments import Parser
from flowad_jax.encoders.architecture import PACKAGE, Architecture, complete_shapes, find
from flowad_jax.encoders.load import in_package
from flowad_jax.errors import UserError

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "encoders.md"
PARITY = ROOT / "docs" / "encoder_parity.json"
BEGIN = "<!-- encoders: python -m benchmarks.encoder_table --write -->"
END = "<!-- /encoders -->"
HEADER = ("encoder", "taps", "channels", "strides", "parameters", "weights", "licence", "parity")
RULE = ("---", "---", "---", "---", "---:", "---", "---", "---")


def published() -> list[str]:
    """Returns the encoders with published weights, by family, in the order of its ``SPECS``."""

    def place(name: str) -> tuple[str, int]:
        family, _, variant = name.partition(".")
        return family, list(find(name).family.SPECS).index(variant)

    names = (name for name in lookup.choices(PACKAGE) if find(name).spec.weights)
    return sorted(names, key=place)


def table(measured: dict[str, dict[str, Any]]) -> str:
    """Returns the table in Markdown.

    Args:
      measured: what `encoder_parity.read` returns.
    """
    rows = (_row(name, measured.get(name, {})) for name in published())
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (HEADER, RULE, *rows))


def filled(page: str, rows: str) -> str:
    """Returns the page with another table.

    Raises:
      UserError: one of the comments around the table is missing.
    """
    return _common.between(page, BEGIN, END, rows)


def runs(numbers: Iterable[int]) -> str:
    """Returns ``"16, 24 x 2"`` for 16, 24, 24."""
    counted = ((number, len(list(alike))) for number, alike in itertools.groupby(numbers))
    return ", ".join(f"{number} x {n}" if n > 1 else f"{number}" for number, n in counted)


def parameters(encoder: Architecture) -> int:
    """Returns the number of all that any tap needs; statistics of BatchNorm are none."""
    return sum(leaf.size for leaf in jax.tree.leaves(complete_shapes(encoder)["params"]))


def _row(name: str, measured: dict[str, Any]) -> Iterator[str]:
    encoder = find(name)
    spec, weights = encoder.spec, encoder.spec.weights
    yield f"`{name}`"
    yield f"0 to {len(spec.channels) - 1}"
    yield runs(spec.channels)
    yield runs(spec.strides)
    # Tracing all networks takes longer than a test may.
    yield f"{(measured.get('parameters') or parameters(encoder)) / 1e6:.1f} M"
    where = f"[{weights.file}]({weights.source})"
    if in_package(weights):
        where = f"pip: {weights.source.rpartition(' ')[2]}"
    yield f"{where}, {weights.megabytes:.1f} MB"
    yield weights.licence
    if "worst" in measured:
        figure = f"{measured['worst']:.1e}".replace("e-0", "e-")
        yield f"{figure}, {measured['layers']} layers"
    else:
        yield "not measured"


def main() -> None:
    """Prints the table or writes it."""
    from benchmarks.encoder_parity import read

    parser = Parser("python -m benchmarks.encoder_table", __doc__)
    parser.add_argument("--write", action="store_true", help="put it into the page")
    options = parser.parse_args()
    try:
        rows = table(read(PARITY))
        if options.write:
            files.write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), rows))
        else:
            print(rows)
    except UserError as error:
        parser.fail(error)


if __name__ == "__main__":
    main()
