"""The critical-difference diagram: mean ranks on a line, bars over those that do not differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from flowad_jax import files
from flowad_jax.comparison.sweeps import Ranking
from flowad_jax.errors import printable
from flowad_jax.report.figures import BAD, DPI, NEUTRAL
from flowad_jax.report.results import METRICS

WIDTH, ROW, HEAD = 7.0, 0.28, 0.9  # inches


def save(path: str | Path, found: Ranking) -> None:
    """Draws the ranks of three or more methods as Demšar (2006) does; the best is on the left.

    Raises:
      UserError: the file cannot be written.
    """
    count, order = len(found.names), np.argsort(found.ranks)
    bars = groups(found.ranks[order], found.critical or 0)
    rows = (count + 1) // 2 + len(bars)
    figure = Figure(figsize=(WIDTH, HEAD + ROW * (rows + 1)), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(1, count), ylim=(rows + 0.5, -0.5), xticks=range(1, count + 1), yticks=[])
    axes.xaxis.tick_top()
    axes.spines[["left", "right", "bottom"]].set_visible(False)
    title = f"{METRICS[found.metric]}, mean rank over {len(found.categories)} categories"
    axes.set_title(f"{title}; critical difference {found.critical:.2f}", fontsize=9)
    for row, (first, last) in enumerate(bars):
        ends = found.ranks[order[first]], found.ranks[order[last]]
        axes.plot(ends, [row + 0.4] * 2, color=BAD, linewidth=3, solid_capstyle="round")
    for place, method in enumerate(order):
        left = place < (count + 1) // 2
        down = len(bars) + (place if left else count - 1 - place) + 0.6
        rank, edge = found.ranks[method], 1 if left else count
        axes.plot([rank, rank, edge], [-0.5, down, down], color=NEUTRAL, linewidth=0.8)
        name = f"{printable(found.names[method])}  {rank:.2f}"
        axes.text(edge, down - 0.08, name, ha="left" if left else "right", parse_math=False)
    with files.atomic_write(path) as file:
        figure.savefig(file)


def groups(ranks: np.ndarray, critical: float) -> list[tuple[int, int]]:
    """First and last places of the longest runs of rising ranks that differ by less than that."""
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = int(np.searchsorted(ranks, rank + critical, side="right")) - 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
