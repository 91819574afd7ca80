"""Several runs on one page: their metrics, how they differ, and their curves in one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from flowad_jax import files
from flowad_jax.comparison import runs
from flowad_jax.comparison.runs import Pair, Run
from flowad_jax.errors import printable
from flowad_jax.evaluation.outcome import Outcome
from flowad_jax.report import html_page, results
from flowad_jax.report.charts import Chart, as_chart
from flowad_jax.report.curves import rate_axes
from flowad_jax.report.figures import DPI
from flowad_jax.report.formats import with_interval
from flowad_jax.report.tables import Table

# Of Okabe and Ito, which colour-blind readers can tell apart; with the line styles for many runs.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLES = ("-", "--", ":", "-.")


class Section(NamedTuple):
    """A run beside the first: heading, a sentence, and the differences."""

    title: str
    lead: str
    table: Table


def write(path: str | Path, found: Sequence[Run], pairs: Sequence[Pair]) -> None:
    """Writes a page that needs no other file.

    Args:
      path: of the page.
      found: the runs; the first is what others are compared with.
      pairs: what `runs.compare` found.

    Raises:
      UserError: the page cannot be written.
    """
    content = {
        "metrics": _metrics(found),
        "pairs": [_section(found[0].name, pair) for pair in pairs],
        "curves": list(_curves(found)),
    }
    files.write_text(path, html_page.render("compared.html", content))


def _metrics(found: Sequence[Run]) -> Table:
    """A row for every metric, with the interval, and a column for every run."""
    rows = [
        [title, *(with_interval(run.metrics.get(name), run.intervals.get(name)) for run in found)]
        for name, title in results.METRICS.items()
        if any(name in run.metrics for run in found)
    ]
    return Table(["percent", *(run.name for run in found)], rows, [results.INTERVALS_NOTE])


def _section(first: str, pair: Pair) -> Section:
    head, *rows = runs.cells(first, pair)
    notes = [runs.decisions_sentence(pair.decided)] if pair.decided else []
    table = Table(head, rows, notes)
    return Section(f"{first} and {pair.name}", runs.images_sentence(pair), table)


def _curves(found: Sequence[Run]) -> Iterator[Chart]:
    drawn = {
        "Images: ROC": ("normal images with an alarm", "anomalous images found", _roc),
        "Regions: PRO": ("defect-free pixels with an alarm", "mean part of a region found", _pro),
    }
    for title, (x_name, y_name, curve) in drawn.items():
        curves = [(run.name, curve(run.outcome)) for run in found]
        known = [(name, points) for name, points in curves if points is not None]
        if known:
            yield as_chart(title, _overlaid(known, x_name, y_name))


def _overlaid(curves: Sequence[tuple[str, Any]], x_name: str, y_name: str) -> Figure:
    figure = Figure(figsize=(4.4, 4.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for number, (name, (x, y)) in enumerate(curves):
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
        axes.plot(x, y, color=colour, linestyle=style, label=printable(name))
    rate_axes(axes, "", x_name, y_name)
    for text in axes.legend(frameon=False, fontsize=8.5, loc="lower right").get_texts():
        text.set_parse_math(False)
    return figure


def _roc(one: Outcome) -> tuple[np.ndarray, np.ndarray] | None:
    if len(set(one.labels.tolist())) < 2:
        return None
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(one.labels, one.scores)
    return false, true


def _pro(one: Outcome) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean overlap over false positive rate, at the thresholds that are kept."""
    if one.region is None or not one.region.regions.sum():
        return None
    false, overlap = (
        np.append(0, rows.sum(axis=0)) for rows in (one.region.false, one.region.overlap)
    )
    return false / false[-1], overlap / one.region.regions.sum()
