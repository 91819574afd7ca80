"""Charts of a report: drawn by ``_drawing.py``, then put into the page as SVG.

Within the page the colours are variables of its style sheet, so that a chart follows a dark or a
light page, and the lettering is text that can be read aloud and searched.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import matplotlib
import numpy as np

from flowad_jax.evaluation import _drawing as draw
from flowad_jax.evaluation import metrics
from flowad_jax.evaluation.report_findings import Findings
from flowad_jax.evaluation.report_html import Html, tag
from flowad_jax.types import Scores

# Colours of _drawing.py, as matplotlib writes them, and their names in page.css.
COLOURS = {
    draw.GOOD.lower(): "var(--good)",
    draw.BAD.lower(): "var(--bad)",
    draw.NEUTRAL.lower(): "var(--muted)",
    "#000000": "var(--ink)",
    "#404040": "var(--muted)",
    "#999999": "var(--line-strong)",
    "#b3b3b3": "var(--line-strong)",
}


def curves(findings: Findings) -> Html:
    """ROC over images and, given masks, ROC over pixels and PRO."""
    labels, masks, *known = metrics.known(findings.labels, findings.masks, *findings.scores)
    scores = Scores(*known)
    reasons = metrics.undefined(labels, masks)
    values = metrics.image_metrics(labels, scores.image)
    missing = reasons.get("image_auroc")
    shown = [_rates("image_roc", labels, scores.image, values, missing)]
    if masks is not None:
        missing = reasons.get("pixel_auroc")
        values, curve = metrics.pixel_analysis(masks, scores.pixel)
        shown.append(_rates("pixel_roc", curve, values, missing))
        if scores.overlap is not None:
            values, curve = metrics.pixel_analysis(masks, scores.overlap)
        shown.append(_rates("pro", curve, values, missing))
    return tag("div", *shown, class_="charts")


def distribution(findings: Findings) -> Html:
    """Histogram of image scores above a row of dots for every kind."""
    image = np.asarray(findings.scores.image, np.float64)
    groups = [(kind, label, image[rows]) for (label, kind), rows in findings.groups().items()]
    ranges = "; ".join(f"{name}: {s.min():.4g} to {s.max():.4g}" for name, _, s in groups)
    figure = draw.distribution(groups, findings.threshold)
    figure.suptitle("")  # the page has a heading
    chart = _embedded(figure, f"Image scores by kind. {ranges}", "wide")
    return tag("div", chart, class_="scroll", tabindex="0")


def _rates(which: str, *arguments: Any) -> Html:
    figure, (axes,) = draw.curves(1)
    getattr(draw, which)(axes, *arguments)
    heading = axes.get_title(loc="left")
    axes.set_title("", loc="left")
    caption = tag("figcaption", heading)
    return tag("figure", caption, _embedded(figure, f"Curve: {heading}", "square"))


def _embedded(figure: Any, label: str, class_: str) -> Html:
    """The figure as an element that needs nothing from outside the page."""
    buffer = io.StringIO()
    # Text stays text; the fixed salt gives the same page for the same numbers.
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "report"}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # names in scripts that the font lacks
        figure.savefig(buffer, format="svg", transparent=True)
    svg = buffer.getvalue()
    box = re.search(r'viewBox="([^"]*)"', svg)
    inside = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    inside = re.sub(r"<metadata>.*?</metadata>", "", inside, flags=re.DOTALL)
    inside = re.sub(r'<g id="[^"]*"', "<g", inside)  # names that every figure has
    for colour, variable in COLOURS.items():
        inside = inside.replace(colour, variable)
    return tag(
        "svg", Html(inside), viewBox=box[1] if box else None, role="img", aria_label=label,
        class_=f"chart {class_}",
    )  # fmt: skip
