"""Charts of the HTML report: the figures of `figures.py` as SVG inside the page."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np

from flowad_jax.report import history
from flowad_jax.report.curves import distribution, rate_curves
from flowad_jax.report.scored_images import ScoredImages


class Chart(NamedTuple):
    """A picture for the page: its heading, its address (data), and what it shows in words."""

    heading: str
    source: str
    label: str


def curves(images: ScoredImages) -> list[Chart]:
    """ROC over images and, given masks, ROC over pixels and PRO."""
    drawn = rate_curves(images.labels, images.scores, images.masks, one_each=True)
    charts = []
    for figure in drawn:
        (axes,) = figure.axes
        heading = "Synthetic: " * (images.origin == "synthetic") + axes.get_title(loc="left")
        axes.set_title("", loc="left")
        charts.append(Chart(heading, _svg(figure), f"Curve: {heading}"))
    return charts


def learning(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Losses and test metrics over the epochs, as far as there are several."""
    drawn = {"Loss": history.losses(rows), "Metrics": history.metrics(rows)}
    return [
        Chart(name, _svg(figure), f"{name} over the epochs")
        for name, figure in drawn.items()
        if figure
    ]


def false_alarms(images: ScoredImages, rate: float | None) -> list[Chart]:
    """Measured false alarms against those asked for, where there are enough good test images."""
    if images.p_values is None:
        return []
    figure = history.false_alarms(images.p_values[images.labels == 0], rate)
    return [as_chart("False alarms, measured against asked for", figure)] if figure else []


def over_time(images: ScoredImages) -> list[Chart]:
    """Image scores over the time, where the data set knows it."""
    times = getattr(images.records, "times", None)
    threshold = images.threshold
    figure = history.scores_over_time(times, images.scores.image, images.labels, threshold)
    return [as_chart("Image scores over time", figure)] if figure else []


def score_distribution(images: ScoredImages) -> Chart:
    """Histogram of image scores above a row of dots for every kind."""
    scores = np.asarray(images.scores.image, np.float64)
    groups = [(kind, label, scores[rows]) for (label, kind), rows in images.groups().items()]
    ranges = "; ".join(f"{name}: {s.min():.4g} to {s.max():.4g}" for name, _, s in groups)
    figure = distribution(groups, images.threshold)
    figure.suptitle("")  # the page has a heading
    return Chart("", _svg(figure), f"Image scores by kind. {ranges}")


def as_chart(heading: str, figure: Any) -> Chart:
    """A figure with a heading that says what it shows."""
    return Chart(heading, _svg(figure), heading)


def _svg(figure: Any) -> str:
    """The figure as the address of a picture that needs nothing from outside the page."""
    buffer = io.BytesIO()
    # The fixed salt gives the same page for the same numbers.
    with matplotlib.rc_context({"svg.hashsalt": "report"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # names in scripts that the font lacks
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
