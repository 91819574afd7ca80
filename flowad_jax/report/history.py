"""Figures of a run beside its test images: how it learned, and if its threshold kept its word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy import stats

from flowad_jax.report.curves import quiet
from flowad_jax.report.figures import BAD, DPI, GOOD, LABELS, NEUTRAL
from flowad_jax.report.formats import is_finite

SIZE = (5.6, 3.4)
METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro_0.30": "AUPRO (0.30)"}
LEAST = 5  # p-values from which a measured rate says anything


def losses(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Draws the loss of training and of held-out images over the epochs; None with fewer than two.

    Args:
      rows: of ``metrics.jsonl``.
    """
    lines = {
        "training": _points(rows, "train", "loss"),
        "held-out images": _points(rows, "eval", "holdout_loss"),
    }
    return _over_epochs(lines, "loss")


def metrics(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Draws the test metrics over the epochs; None where fewer than two epochs were scored."""
    lines = {title: _points(rows, "eval", name) for name, title in METRICS.items()}
    figure = _over_epochs(lines, "on the test images")
    if figure:
        figure.axes[0].yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return figure


def false_alarms(p_values: np.ndarray, threshold: float | None) -> Figure | None:
    """Draws the measured share of false alarms at every rate that one could have asked for.

    Below the diagonal the promise is kept. The band holds what good test images show by chance, at
    95 %, if held-out ones are like them.

    Args:
      p_values: (n,) of good test images.
      threshold: rate that was asked for, drawn as a line; None for none.

    Returns:
      None with fewer than `LEAST` images.
    """
    count = len(p_values)
    if count < LEAST:
        return None
    figure, axes = _axes()
    rates = np.linspace(0, 1, 201)
    low, high = (stats.binom.ppf(end, count, rates) / count for end in (0.025, 0.975))
    axes.fill_between(rates, low, high, color=NEUTRAL, alpha=0.2, linewidth=0, label="by chance")
    axes.plot([0, 1], [0, 1], color=NEUTRAL, linestyle=":")
    measured = np.searchsorted(np.sort(p_values), rates, side="right") / count
    axes.step(rates, measured, where="post", color=GOOD, label=f"of {count} good test images")
    if threshold is not None:
        axes.axvline(threshold, color=BAD, linestyle="--", label="asked for")
    axes.set(xlabel="false-alarm rate asked for", ylabel="false alarms measured", xlim=(0, 1))
    axes.set_ylim(0, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    return figure


def scores_over_time(
    times: Sequence[datetime] | None,
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: float | None,
) -> Figure | None:
    """Draws every image's score at the time that it was taken; None where times are not known."""
    if not times or len(set(times)) < 2:
        return None
    figure, axes = _axes()
    when = np.array(times, dtype="datetime64[us]")
    for label, (name, colour, marker, _) in LABELS.items():
        rows = np.asarray(labels) == label
        if rows.any():
            style = {"color": colour, "marker": marker, "s": 14, "alpha": 0.6, "linewidths": 0}
            axes.scatter(when[rows], np.asarray(scores)[rows], label=name, **style)
    if threshold is not None:
        axes.axhline(threshold, color="black", linestyle="--", linewidth=1.2, label="threshold")
    axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.set(ylabel="image score")
    axes.legend(frameon=False, fontsize=8.5)
    return figure


def _points(rows: Sequence[Mapping[str, Any]], kind: str, name: str) -> list[tuple[int, float]]:
    return [(row["epoch"], row[name]) for row in rows if row["kind"] == kind and name in row]


def _over_epochs(lines: Mapping[str, list[tuple[int, float]]], title: str) -> Figure | None:
    drawn = {name: points for name, points in lines.items() if points}
    if not any(len(points) > 1 for points in drawn.values()):
        return None
    figure, axes = _axes()
    for (name, points), colour, marker in zip(
        drawn.items(), (GOOD, BAD, NEUTRAL), "os^", strict=False
    ):
        epochs, values = zip(*(point for point in points if is_finite(point[1])), strict=True)
        axes.plot(epochs, values, color=colour, marker=marker, markersize=3, label=name)
    axes.set(xlabel="epoch", ylabel=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8.5)
    return figure


def _axes() -> tuple[Figure, Any]:
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    quiet(axes)
    return figure, axes
