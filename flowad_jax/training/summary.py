"""What a person reads of a run: results, pictures, a page, and a line at the end."""

from __future__ import annotations

import logging
import shlex
import statistics
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import config_dict

from flowad_jax import parallel
from flowad_jax.errors import printable
from flowad_jax.evaluation import conformal, metrics, pictures, results
from flowad_jax.evaluation import report as html
from flowad_jax.training import converted, splits, state, workdir
from flowad_jax.training import logging as metrics_log
from flowad_jax.training.scoring import Scored, score_as_asked
from flowad_jax.training.system import System, build

log = logging.getLogger("flowad_jax")


def report(system: System, path: Path, past: dict[str, Any], scored: Scored) -> dict[str, Any]:
    """Writes results.json, results.md and the pictures of a run; returns the results.

    Args:
      system: the run.
      path: its workdir.
      past: see `past_of`.
      scored: the state that is reported.
    """
    written = {
        "method": system.config.method.name,
        "data": {
            "name": system.config.data.name,
            "category": system.config.data.category,
            "image_size": system.image_size,
            "train": system.train.describe(),
            "holdout": system.holdout.describe(),
            "test": system.test.describe(),
            **({"changed_in_training": past["changed_data"]} if past["changed_data"] else {}),
        },
        "encoder": dict(system.encoder.source),
        "seed": system.config.seed,
        "scoring": system.config.eval.scoring,
        "image_score": system.config.eval.image_score,
        "mask_size": system.config.eval.mask_size,
        "epochs": system.config.train.epochs,
        "columns": {
            "converted" if converted.is_converted(path) else "last": scored.metrics,
            **_chosen(path, system.config.eval.scoring),
        },
        "findings": system.findings,
        "undefined": metrics.undefined(system.test.labels, scored.masks),
        "thresholds": _thresholds(system, scored),
        "timing": _timing(system, past, scored),
        "versions": results.versions(),
        "commands": [f"python eval.py --workdir={shlex.quote(path.name)}"],
        "pictures": [],
    }
    results.write(path, written)  # first: no picture may cost a result
    written["pictures"] = _pictures(system, path, scored)
    results.write(path, written)
    _attempt("report.html", lambda: _write_page(system, path, written, scored))
    return written


def _attempt(name: str, draw: Callable[[], Any]) -> Any:
    """Returns what was drawn; whatever fails costs the picture and gets a line, and no more."""
    try:
        return draw()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        log.warning("%s could not be written: %s", name, printable(reason))
        return None


def _write_page(system: System, path: Path, written: dict[str, Any], scored: Scored) -> None:
    """Writes report.html, unless the config wants none."""
    limit = system.config.eval.report_images
    if not limit:
        return
    html.write(
        path / "report.html",
        written,
        system.config,
        system.test,
        scored.scores,
        scored.masks,
        scored.p_values,
        written["thresholds"].get("image"),
        limit=limit,
    )


def _thresholds(system: System, scored: Scored) -> dict[str, Any]:
    """The calibration card, and what its threshold does on the test set."""
    fitted, p_values = scored.fitted, scored.p_values
    if fitted is None or p_values is None:
        return {}
    labels = system.test.labels
    card = conformal.card(fitted.image, fitted.peak, system.config.eval.false_alarm_rate)
    flagged = p_values <= card["promised"]
    test = {
        "false_alarms": int(np.sum(flagged & (labels == 0))),
        "good": int(np.sum(labels == 0)),
        "detected": int(np.sum(flagged & (labels == 1))),
        "anomalous": int(np.sum(labels == 1)),
    }
    if unknown := int(np.sum(labels == metrics.UNKNOWN)):
        flags = int(np.sum(flagged & (labels == metrics.UNKNOWN)))
        test |= {"unknown_flagged": flags, "unknown": unknown}
    return {**card, "test": test}


def evaluate_workdir(
    directory: str | Path,
    scoring: str | None = None,
    rate: float | None = None,
    allow_import: Collection[str] = (),
) -> dict[str, Any]:
    """Scores the newest checkpoint of a workdir again and rewrites its report.

    Args:
      directory: a workdir of `train`.
      scoring: ``"calibrated"`` or the name of the method's published form, instead of the
        config's choice.
      rate: false-alarm rate of the thresholds, instead of the config's.
      allow_import: packages whose functions the stored config may name, as in
        ``"mine.flows:build"``; nothing is imported from elsewhere.

    Raises:
      UserError: it is no workdir, the method has no such scoring, the checkpoint is damaged, or
        the config names what may not be imported.
    """
    path = Path(directory).absolute()
    config = workdir.load_config(path, allow_import)
    if scoring:
        config.eval.scoring = scoring
    if rate is not None:
        config.eval.false_alarm_rate = rate
    metrics_log.read(path)  # what is damaged is refused before anything is computed
    with parallel.outputs(path) as outputs:
        meta = state.meta_of(path)
        done, _ = meta.get("position", (config.train.epochs, 0))  # one that was converted is done
        fitted = state.fitted_of(meta, config)
        if done < config.train.epochs:
            log.warning("training stopped in epoch %d of %d", done, config.train.epochs)
            fitted = None  # if there is one, it belongs to another state
        fits = fitted is None and config.eval.scoring == "calibrated"
        split = _normal_images(path, config, meta, fits)
        system = build(config, split=split, for_training=False)
        restored, *_ = state.of_workdir(system, path, system.devices)
        scored = score_as_asked(system, restored, system.features, fitted)
        return report(system, outputs, past_of(meta), scored)


def _normal_images(
    path: Path, config: config_dict.ConfigDict, meta: dict[str, Any], fits: bool
) -> splits.Split | None:
    """The images that a run was trained on and held out; opened only where scores are fitted.

    None: an old checkpoint does not know them.
    """
    images = meta.get("images")
    if images is None:
        if fits:
            log.warning("%s does not say which images it was trained on", path)
        return None
    if not fits:
        return splits.names_only(images)
    split = splits.again(config, images)
    if found := splits.differences(images, splits.listed(config, split)):
        raise splits.refused(path, found)
    return split


def past_of(meta: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint knows about how it came about."""
    return {key: meta.get(key) for key in ("epoch_seconds", "features_seconds", "changed_data")}


def headline(found: Mapping[str, Any]) -> str:
    """What a script prints at the end: metrics, and what the threshold does."""
    columns = found["columns"]
    name = results.final(columns)
    lines = [f"{results.COLUMNS[name].partition(' (')[0]}: {one_line(columns[name])}"]
    if card := found["thresholds"]:
        flags = "flags {false_alarms} of {good} good and {detected} of {anomalous} anomalous images"
        rate = f"threshold for a false-alarm rate of {card['promised']:.3g}"
        if "unknown" in card["test"]:
            flags += ", and {unknown_flagged} of {unknown} whose label is unknown"
        lines.append(f"{rate}: {flags.format(**card['test'])}")
    return "\n".join(lines)


def one_line(values: dict[str, float]) -> str:
    """The main metrics in percent, on one line."""
    names = ("image_auroc", "pixel_auroc", "aupro_0.30")
    return "  ".join(f"{name} {100 * values[name]:.2f}" for name in names)


def _chosen(path: Path, scoring: str) -> dict[str, dict[str, Any]]:
    """Metrics of the logged epoch that held-out normal images choose, and the test set would.

    The first is a result, the second a bound.
    """
    rows = [row for row in metrics_log.read(path) if row.get("scoring") == scoring]
    loyal = [row for row in rows if "holdout_loss" in row]
    tested = [row for row in rows if "image_auroc" in row]
    return {
        "validation": _shown(min(loyal, key=lambda row: row["holdout_loss"], default={})),
        "oracle": _shown(max(tested, key=_quality, default={})),
    }


def _quality(row: dict[str, Any]) -> tuple[float, float]:
    return row["image_auroc"], row.get("pixel_auroc", 0.0)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("kind", "step", "scoring")}


def _timing(system: System, timing: dict[str, Any], scored: Scored) -> dict[str, Any]:
    # The first epoch holds compilation; with one epoch there is no other figure to give.
    epochs = timing["epoch_seconds"][1:] or timing["epoch_seconds"]
    seconds = statistics.median(epochs) if epochs else None
    return {
        "features_seconds": timing["features_seconds"],
        "seconds_per_epoch": seconds,
        "train_images_per_second": (
            round(system.images_per_epoch / seconds, 2) if seconds else None
        ),
        "test_images_per_second": round(len(system.test) / scored.seconds, 2),
    }


def _pictures(system: System, path: Path, scored: Scored) -> list[str]:
    """Draws panels, curves and histogram; returns their paths relative to the workdir."""
    per_kind = system.config.eval.pictures_per_kind
    if not per_kind:
        return []
    test, masks, (image, maps, overlap) = system.test, scored.masks, scored.scores
    folder, labels = path / "images", system.test.labels
    roc, histogram = folder / "roc.png", folder / "histogram.png"
    drawings: dict[str, Callable[[], Any]] = {
        "roc.png": lambda: [pictures.save_roc(roc, labels, image, masks, maps, overlap)],
        "histogram.png": lambda: [pictures.save_histogram(histogram, labels, test.kinds, image)],
        "panels": lambda: pictures.save_panels(folder, test, maps, image, per_kind=per_kind),
    }
    return [path for name, draw in drawings.items() for path in _attempt(name, draw) or ()]
