"""One page about a run, for people: ``report.html`` needs no other file and no network.

Everything is inside the file: style sheet, script, charts as SVG, pictures as data. A content
security policy within the page forbids it to load anything, and to run any script but its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowad_jax import files
from flowad_jax.evaluation.report_findings import Findings, is_finite
from flowad_jax.evaluation.report_html import Html, join, pairs, tag
from flowad_jax.types import Scores

if TYPE_CHECKING:
    from ml_collections import ConfigDict

METHODS = {"cflow": "CFLOW-AD", "msflow": "MSFlow", "sanflow": "SANFlow", "ssnf": "SSNF"}


def write(
    path: Path,
    results: Mapping[str, Any],
    config: Mapping[str, Any] | ConfigDict,
    test: Any,
    scores: Scores,
    masks: np.ndarray | None,
    p_values: np.ndarray | None = None,
    threshold: float | None = None,
    *,
    title: str = "",
    limit: int = 200,
) -> Path:
    """Writes the report; an older one is replaced whole or not at all.

    Args:
      path: the page.
      results: what `results.write` takes, with ``thresholds`` where there are any.
      config: all settings of the run.
      test: N records with ``labels``, ``kinds`` and ``paths``; only those shown are decoded.
      scores: of these records.
      masks: (N, H, W) bool at the size of the maps, or None without pixel annotations.
      p_values: (N,) of the image scores, see `conformal.p_values`.
      threshold: an image whose score is above it counts as anomalous. None or infinite: nothing
        is decided.
      title: heading of the page; by default the category.
      limit: images in the gallery.

    Returns:
      ``path``.

    Raises:
      UserError: the page cannot be written, or an image cannot be read.
    """
    decided = threshold if is_finite(threshold) else None
    findings = Findings(test, scores, masks, p_values, decided)
    settings = config if isinstance(config, Mapping) else config.to_dict()
    title = title or str(results["data"].get("category") or results["data"]["name"])
    body = _body(title, results, settings, findings, limit)
    files.write_text(path, _page(title, body))
    return path


def _page(title: str, body: Html) -> str:
    """The document around the body."""
    style, script = _resource("page.css"), _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Charts carry colours in style attributes, which no checksum can name.
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} – anomaly detection report"),
        tag("style", Html(style)),
    )
    return "<!doctype html>\n" + tag(
        "html", head, tag("body", body, tag("script", Html(script))), lang="en"
    )


def _body(
    title: str,
    results: Mapping[str, Any],
    config: Mapping[str, Any],
    findings: Findings,
    limit: int,
) -> Html:
    """Header and sections."""
    # matplotlib and scikit-learn take seconds to import, and training need not wait for them.
    from flowad_jax.evaluation import report_charts, report_gallery, report_tables

    card = results.get("thresholds") or {}
    counts = card.get("test", {}) if findings.threshold is not None else {}
    notices = [tag("p", line, class_="notice") for line in results.get("findings", ())]
    metrics = report_tables.metric_table(results["columns"], results.get("undefined", {}))
    sections = {
        "Metrics": join([*notices, metrics]),
        "Calibration": report_tables.calibration(card, counts),
        "Kinds of defects": report_tables.kinds(findings),
        "Curves": report_charts.curves(findings),
        "Image scores": report_charts.distribution(findings),
        "Gallery": report_gallery.gallery(findings, limit),
        "Details": report_tables.details(results, config),
    }
    top = _header(title, results, report_tables.tiles(results, counts), list(sections))
    return join([top, _main(sections)])


def _header(title: str, results: Mapping[str, Any], tiles: Html, sections: list[str]) -> Html:
    """What was done to what, the main figures, and links to the sections."""
    method, data = results["method"], results["data"]
    size = data.get("image_size")
    facts = {
        "Method": METHODS.get(method, method),
        "Data": data["name"],
        "Category": data.get("category"),
        "Image size": " × ".join(map(str, size)) if isinstance(size, (list, tuple)) else size,
        "Scores": results.get("scoring"),
        "Epochs": results.get("epochs"),
        "Seed": results["seed"],
        "Date": datetime.now().strftime("%Y-%m-%d"),
    }
    links = [tag("a", name, href=f"#{_anchor(name)}") for name in sections]
    return tag(
        "header",
        tag("p", "Anomaly detection report", class_="eyebrow"),
        tag("h1", title),
        pairs({name: value for name, value in facts.items() if value not in (None, "")}),
        tiles,
        tag("nav", *links, aria_label="Sections"),
        class_="top",
    )


def _main(sections: Mapping[str, Html]) -> Html:
    return tag(
        "main",
        *(
            tag("section", tag("h2", name), content, id=_anchor(name))
            for name, content in sections.items()
        ),
    )


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _resource(name: str) -> str:
    return (resources.files("flowad_jax.evaluation") / "_report" / name).read_text("utf-8")
