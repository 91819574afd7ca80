"""The figures that papers and third parties published, and how ours compare."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flowad_jax import recipes, schema
from flowad_jax.errors import UserError
from flowad_jax.lookup import nearest
from flowad_jax.report.results import METRICS, markdown_table
from flowad_jax.schema import array, number, table

PAPERS = "papers/"
MEAN = "mean"
COLUMNS = ("last", "validation", "oracle")
_TEXT = {"type": "string"}
_FIGURES = table({}, others=table({}, others=number()))
_ROW = table(
    {"recipe": _TEXT, "source": _TEXT, "selection": _TEXT}, {"columns": _FIGURES, "note": _TEXT}
)


class Comparison(NamedTuple):
    """One published figure and ours, in percent.

    Attributes:
      source: who published it.
      selection: which epoch it is of.
      metric: key of `METRICS`.
      published: the figure.
      ours: of the columns of a run that has them.
    """

    source: str
    selection: str
    metric: str
    published: float
    ours: dict[str, float]

    @property
    def same_selection(self) -> str:
        """The column of ours that chose its epoch the same way; the last epoch where unknown."""
        best = "best" in self.selection and "oracle" in self.ours
        return "oracle" if best else "last"

    @property
    def difference(self) -> float | None:
        """Ours minus the published figure, chosen the same way."""
        ours = self.ours.get(self.same_selection)
        return None if ours is None else ours - self.published


def read(path: Path | None = None) -> list[dict[str, Any]]:
    """Returns the published rows of the package, or of a file of the same form.

    Raises:
      UserError: the file cannot be read or has another form.
    """
    file = path or Path(recipes.__file__).parent / PAPERS / "published.json"
    rows: list[dict[str, Any]] = schema.read(file, array(_ROW), "see configs/papers/published.json")
    return rows


def find_recipe(name: str, rows: Iterable[Mapping[str, Any]], known: Iterable[str]) -> str:
    """Returns the recipe of a paper that a name stands for.

    Args:
      name: such as ``"msflow_mvtec_wide_resnet50_2"``, or as much of it as only one starts with.
      rows: published rows.
      known: the recipes that there are; those of papers start with ``papers/``.

    Raises:
      UserError: there is none with published figures, or several.
    """
    plain = name.removeprefix(PAPERS)
    published = list(dict.fromkeys(row["recipe"] for row in rows))
    found = [one for one in published if one == plain] or [
        one for one in published if one.startswith(plain)
    ]
    if len(found) > 1:
        raise UserError(f"'{name}' may be {', '.join(found)}: name one of them")
    if not found:
        hint = nearest(plain, published)
        raise UserError(f"no figures are published for a recipe '{name}': {hint}")
    recipe = PAPERS + found[0]
    return recipe if recipe in set(known) else found[0]


def compare(
    rows: Iterable[Mapping[str, Any]],
    recipe: str,
    category: str,
    columns: Mapping[str, Mapping[str, float | None]],
) -> list[Comparison]:
    """Returns every published figure of a recipe and category beside ours.

    Args:
      rows: as of `read`.
      recipe: name, with or without ``papers/``.
      category: or ``"mean"`` of all.
      columns: metrics of a run, fractions of 1, by how their epoch was chosen.
    """
    found = []
    for row in rows:
        if row["recipe"] != recipe.removeprefix(PAPERS):
            continue
        for metric, value in row.get("columns", {}).get(category, {}).items():
            ours = {
                name: 100 * own
                for name in COLUMNS
                if (own := columns.get(name, {}).get(metric)) is not None
            }
            found.append(Comparison(row["source"], row["selection"], metric, value, ours))
    return found


def markdown(found: Iterable[Comparison]) -> str:
    """A table of comparisons, in percent."""
    head = ("metric", "published by", "its epoch", "published")
    titles = (*head, *(f"ours, {name}" for name in COLUMNS), "difference")
    rows: list[tuple[str, ...]] = [titles, ("---",) * len(titles)]
    for one in found:
        ours = (f"{one.ours[name]:.2f}" if name in one.ours else "-" for name in COLUMNS)
        gap = one.difference
        shown = "-" if gap is None else f"{gap:+.2f} ({one.same_selection})"
        title = METRICS.get(one.metric, one.metric)
        rows.append((title, one.source, one.selection, f"{one.published:.2f}", *ours, shown))
    return markdown_table(rows)


def as_json(found: Iterable[Comparison]) -> str:
    """The same for programs."""
    content = [{**one._asdict(), "difference": one.difference} for one in found]
    return json.dumps(content, indent=2) + "\n"
