"""Human-readable summary of a run: results, pictures, a page, and a line at the end."""

from __future__ import annotations

import logging
import os
import shlex
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowad_jax.data import record
from flowad_jax.data.subset import NamesOnly
from flowad_jax.detector import converted
from flowad_jax.errors import printable
from flowad_jax.evaluation import intervals, metrics, outcome
from flowad_jax.evaluation.intervals import Interval
from flowad_jax.evaluation.scores import extreme_ties
from flowad_jax.report import html_page as html
from flowad_jax.report import pictures, results
from flowad_jax.report.formats import is_finite, with_interval
from flowad_jax.report.scored_images import NORMAL, SYNTHETIC, WITHOUT_METRICS
from flowad_jax.training import further, metrics_log
from flowad_jax.training.experiment import Experiment
from flowad_jax.training.scoring import Scored

log = logging.getLogger("flowad_jax")


def report(
    experiment: Experiment,
    path: Path,
    meta: dict[str, Any],
    scored: Scored,
    data: str | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Writes results.json, results.md, the pictures and the page of a run.

    Args:
      experiment: the run, with the images that were scored.
      path: its folder.
      meta: what its checkpoint says about the training.
      scored: what was found.
      data: where the images lie if they are not those of the run's data set.
      folder: to write into; None: ``path``.

    Returns:
      The contents of results.json.
    """
    config, test, ties = experiment.config, experiment.test, _ties(experiment, scored)
    for line in ties:
        log.warning("%s", line)
    origin = experiment.scored_images
    command = ["flowad", "eval", f"--workdir={path.name}"] + [f"--data={data}"] * bool(data)
    written = {
        "method": config.method.name,
        "data": {
            "name": config.data.name,
            "category": config.data.category or "",
            "image_size": experiment.canvas.size,
            "train": record.count(experiment.train),
            "holdout": record.count(experiment.holdout),
            "test": record.count(NamesOnly(()) if origin in (*NORMAL, "synthetic") else test),
            **({"synthetic_test": record.count(test)} if origin == "synthetic" else {}),
            **({"test_root": os.path.abspath(data)} if data else {}),
            **({"changed_in_training": meta["changed_data"]} if "changed_data" in meta else {}),
        },
        "encoder": dict(experiment.encoder.source),
        "seed": config.seed,
        "scored_images": origin,
        "scoring": config.eval.scoring,
        "image_score": config.eval.image_score,
        "mask_size": config.eval.mask_size,
        "epochs": config.train.epochs,
        "columns": {
            "converted" if converted.is_converted(path) else "last": scored.metrics,
            **({} if data else metrics_log.chosen(path, config.eval.scoring)),
        },
        "findings": list(dict.fromkeys([*meta.get("findings", ()), *experiment.findings, *ties])),
        "undefined": metrics.undefined(test.labels, scored.masks) if scored.metrics else {},
        "intervals": {},
        "further": {},
        "thresholds": _thresholds(experiment, scored),
        "timing": _timing(experiment, meta, scored),
        "versions": results.versions(),
        "commands": [" ".join(map(shlex.quote, command))],
        "pictures": [],
    }
    if scored.metrics and origin != "synthetic":
        sure = _or_warn(outcome.FILE, lambda: _intervals(experiment, scored, folder or path))
        measured = _or_warn("further metrics", lambda: further.measure(experiment, scored)) or {}
        written["intervals"] = {name: [*ends] for name, ends in (sure or {}).items()}
        written["further"] = {
            name: {"value": figure.value, "interval": figure.interval and [*figure.interval]}
            for name, figure in measured.items()
        }
    _write(experiment, folder or path, scored, written)
    return written


def _intervals(experiment: Experiment, scored: Scored, path: Path) -> dict[str, Interval]:
    """Keeps what comparisons with other runs need, and returns the intervals of the metrics."""
    test, image = experiment.test, scored.scores.image
    judged = outcome.gather(test.paths, test.labels, image, scored.flagged, *scored.compared)
    outcome.write(path, judged)
    return intervals.of(judged, scored.metrics)


def _write(experiment: Experiment, path: Path, scored: Scored, written: dict[str, Any]) -> None:
    """Writes results.json, results.md, the pictures and the page; ``written`` is in the first."""
    results.write(path, written)  # first: no picture may cost a result
    written["pictures"] = _pictures(experiment, path, scored)
    results.write(path, written)
    config = experiment.config
    if limit := config.eval.report_images:
        _or_warn(
            "report.html",
            lambda: html.write(
                path / "report.html",
                written,
                config,
                experiment.shown_images,
                scored.scores,
                scored.masks,
                None if experiment.scored_images in NORMAL else scored.p_values,
                written["thresholds"].get("image"),
                flagged=scored.flagged,
                history=[] if "test_root" in written["data"] else metrics_log.read(path),
                limit=limit,
            ),
        )


def _or_warn(name: str, draw: Callable[[], Any]) -> Any:
    """Returns what was drawn or measured; a failure costs that and gets a line, and no more."""
    try:
        return draw()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        log.warning("%s could not be written: %s", name, printable(reason))
        return None


def _pictures(experiment: Experiment, path: Path, scored: Scored) -> list[str]:
    """Draws panels, curves and histogram; returns their paths relative to the workdir."""
    per_kind = experiment.config.eval.pictures_per_kind
    if not per_kind:
        return []
    test, masks, (image, maps, overlap) = experiment.test, scored.masks, scored.scores
    folder, labels, shown = path / "images", test.labels, experiment.shown_images
    made_up = "synthetic_" * (experiment.scored_images == "synthetic")
    roc, histogram = folder / f"{made_up}roc.png", folder / f"{made_up}histogram.png"
    drawings: dict[str, Callable[[], Any]] = {
        "roc.png": lambda: [pictures.save_roc(roc, labels, image, masks, maps, overlap)],
        "histogram.png": lambda: [pictures.save_histogram(histogram, labels, test.kinds, image)],
        "panels": lambda: pictures.save_panels(folder, shown, maps, image, per_kind=per_kind),
    }
    if not scored.metrics:
        del drawings["roc.png"]
    return [path for name, draw in drawings.items() for path in _or_warn(name, draw) or ()]


def _ties(experiment: Experiment, scored: Scored) -> list[str]:
    """Lines about scores at an extreme that do not tell images apart, and what to do."""
    scores, config = {experiment.scored_images: scored.scores.image}, experiment.config
    if scored.fitted:
        scores["held-out"] = scored.fitted.image
    remedy = (
        "unless they are copies of one image, train longer, or anew with eval.image_score=0.03"
        if scored.fitted
        else f"eval.scoring={config.eval.scoring} does not tell them apart: calibrated may"
    )
    return [
        f"{name} images: {tie}; {remedy}"
        for name, some in scores.items()
        for tie in extreme_ties(some)
    ]


def _thresholds(experiment: Experiment, scored: Scored) -> dict[str, Any]:
    """The calibration card, and what its threshold does on the test set."""
    labels, card = experiment.test.labels, scored.decisions.card
    flagged = scored.flagged
    # Normal images of the run are not new, so that a threshold cannot be measured on them.
    if flagged is None or experiment.scored_images in NORMAL:
        return card

    def count(label: int) -> tuple[int, int]:
        return int(np.sum(flagged & (labels == label))), int(np.sum(labels == label))

    (false_alarms, good), (detected, anomalous) = count(0), count(1)
    unknown_flagged, unknown = count(metrics.UNKNOWN)
    test = {"false_alarms": false_alarms, "good": good}
    test |= {"detected": detected, "anomalous": anomalous}
    test |= {"unknown_flagged": unknown_flagged, "unknown": unknown} if unknown else {}
    return {**card, "synthetic_test" if experiment.scored_images == "synthetic" else "test": test}


def _timing(experiment: Experiment, meta: dict[str, Any], scored: Scored) -> dict[str, Any]:
    # The first epoch holds compilation; with one epoch there is no other figure to give.
    epochs = meta.get("epoch_seconds", [])
    epochs = epochs[1:] or epochs
    seconds = statistics.median(epochs) if epochs else None
    rate = round(experiment.images_per_epoch / seconds, 2) if seconds else None
    return {
        "features_seconds": meta.get("features_seconds"),
        "seconds_per_epoch": seconds,
        "train_images_per_second": rate,
        "test_images_per_second": round(len(experiment.test) / scored.seconds, 2),
    }


def headline(found: Mapping[str, Any]) -> str:
    """Returns what a script prints at the end: metrics, and what the threshold does."""
    columns, card = found["columns"], found["thresholds"]
    name = results.final(columns)
    without = WITHOUT_METRICS.get(found.get("scored_images", "test"))
    figures = without or one_line(columns[name], found.get("intervals", {}))
    lines = [f"{results.COLUMNS[name].partition(' (')[0]}: {figures}"]
    if card:
        line, made_up = card["meaning"], "synthetic_test" in card
        if test := card.get("synthetic_test" if made_up else "test"):
            kind = "synthetic" if made_up else "anomalous"
            labelled = f"{{false_alarms}} of {{good}} good and {{detected}} of {{anomalous}} {kind}"
            counts = [f"{labelled} images"] * bool(test["good"] or test["anomalous"])
            if "unknown" in test:
                counts.append("{unknown_flagged} of {unknown} whose label is unknown")
            line += f"; it flags {', and '.join(counts).format(**test)}"
        lines.append(line)
    if "best_f1" in found:
        lines.append(found["best_f1"])
    return "\n".join(lines)


def one_line(values: Mapping[str, float | None], sure: Mapping[str, Interval] | None = None) -> str:
    """Returns the main metrics in percent with their intervals, on one line, or why none."""
    names = ("image_auroc", "pixel_auroc", "aupro_0.30")
    shown = {name: values.get(name) for name in names}
    shown |= {f"synthetic {name}": values.get(f"{SYNTHETIC}{name}") for name in names}
    known = [
        f"{name} {with_interval(value, (sure or {}).get(name))}"
        for name, value in shown.items()
        if is_finite(value)
    ]
    if "pixel_auroc" in values and not is_finite(values["pixel_auroc"]):
        known.append("no masks")
    if "image_auroc" in values and not is_finite(values["image_auroc"]):
        known.insert(0, "no image_auroc, as one kind of test images is missing")
    if not known and "holdout_loss" in values:
        return f"loss {values['holdout_loss']:.4f} on held-out images"
    return "  ".join(known) or "no images to measure on"
