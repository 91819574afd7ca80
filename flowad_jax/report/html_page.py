"""One page about a run, for people: ``report.html`` needs no other file and no network.

Everything is inside the file: style sheet, script, charts and pictures. A content security policy
within the page forbids it to load anything, and to run any script but its own. File names, kinds of
defects and configs come from strangers: the template escapes whatever is put into it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowad_jax import files
from flowad_jax.errors import printable
from flowad_jax.report.formats import flatten, is_finite, shown
from flowad_jax.report.scored_images import SYNTHETIC_NOTE, WITHOUT_METRICS, ScoredImages
from flowad_jax.types import Scores

if TYPE_CHECKING:
    from ml_collections import ConfigDict

METHODS = {
    "cflow": "CFLOW-AD",
    "fastflow": "FastFlow",
    "gaussian": "Gaussian",
    "msflow": "MSFlow",
    "patchflow": "PatchFlow",
    "sanflow": "SANFlow",
    "ssnf": "SSNF",
    "uflow": "U-Flow",
}
_PAGE = Path(__file__).parent / "_report"


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
    flagged: np.ndarray | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    title: str = "",
    limit: int = 200,
) -> Path:
    """Writes the report; an older one is replaced whole or not at all.

    Args:
      path: the page.
      results: what `results.write` takes, with ``thresholds`` where there are any.
      config: all settings of the run.
      test: N records with ``labels``, ``kinds`` and ``paths``; only those shown are decoded.
        ``scored_images`` in the results says what they are, if not test images.
      scores: of these records.
      masks: (N, H, W) bool at the size of the maps, or None without pixel annotations.
      p_values: (N,) of the image scores, see `conformal.p_values`.
      threshold: an image whose score is above it counts as anomalous. None or infinite: nothing
        is decided.
      flagged: (N,) bool, what is anomalous; None: what scores above the threshold.
      history: rows of ``metrics.jsonl``.
      title: heading of the page; by default the category.
      limit: images in the gallery.

    Returns:
      ``path``.

    Raises:
      UserError: the page cannot be written, or an image cannot be read.
    """
    # matplotlib and scikit-learn take seconds to import, and training need not wait for them.
    from flowad_jax.report import charts, gallery, tables

    decided = threshold if is_finite(threshold) else None
    origin = results.get("scored_images", "test")
    images = ScoredImages(test, scores, masks, p_values, decided, origin, flagged)
    card = results.get("thresholds") or {}
    counts = card.get("test", {}) if images.alarms is not None else {}
    settings = config if isinstance(config, Mapping) else config.to_dict()
    content = {
        "title": title or str(results["data"].get("category") or results["data"]["name"]),
        "facts": _facts(results),
        "results": results,
        "tiles": tables.tiles(results, counts),
        "metrics": tables.metric_table(results),
        "calibration": tables.calibration(card, counts),
        "kept_word": charts.false_alarms(images, card.get("false_alarm_rate")),
        "learning": charts.learning(history),
        "kinds": tables.kinds(images),
        "numbers": gallery.numbers(images),
        "curves": [] if origin in WITHOUT_METRICS else charts.curves(images),
        "synthetic_note": SYNTHETIC_NOTE,
        "no_metrics": WITHOUT_METRICS.get(origin, ""),
        "over_time": charts.over_time(images),
        "distribution": charts.score_distribution(images),
        "gallery": gallery.gallery(images, limit),
        "image_counts": tables.image_counts(results["data"]),
        "overrides": tables.overrides(settings),
    }
    files.write_text(path, render("page.html", content))
    return path


def _facts(results: Mapping[str, Any]) -> dict[str, Any]:
    """What was done to what."""
    method, data = results["method"], results["data"]
    size = data.get("image_size")
    facts = {
        "Method": METHODS.get(method, method),
        "Data": data["name"],
        "Category": data.get("category"),
        "Image size": " × ".join(map(str, size)) if isinstance(size, list | tuple) else size,
        "Scores": results.get("scoring"),
        "Epochs": results.get("epochs"),
        "Seed": results["seed"],
        "Date": datetime.now().strftime("%Y-%m-%d"),
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def render(template: str, content: Mapping[str, Any]) -> str:
    """A page from a template; unless that says that a value is HTML, it becomes escaped text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def visible(value: Any) -> Any:
        if isinstance(value, str) and not isinstance(value, Markup):
            return "\n".join(map(printable, value.split("\n")))
        return value

    environment = Environment(
        loader=FileSystemLoader(_PAGE, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "flatten": flatten}
    style, script = ((_PAGE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template)
    return page.render(content, style=Markup(style), script=Markup(script), digest=digest)
