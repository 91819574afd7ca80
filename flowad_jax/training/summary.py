"""Scores a state on the test set and writes what a person reads: results and pictures."""

from __future__ import annotations

import logging
import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import config_dict

from flowad_jax.evaluation import conformal, metrics, native, pictures, results
from flowad_jax.evaluation import report as html
from flowad_jax.evaluation.evaluate import Likelihoods
from flowad_jax.evaluation.fitted import Fitted
from flowad_jax.features.batches import Features, FeatureSets
from flowad_jax.training import logging as metrics_log
from flowad_jax.training import state, workdir
from flowad_jax.training.checkpoint import Checkpoints
from flowad_jax.training.system import System, build
from flowad_jax.types import Scores, TrainState

log = logging.getLogger("flowad_jax")


class Scored(NamedTuple):
    """Scores of the test set and what they amount to.

    Attributes:
      scores: image scores and anomaly maps.
      masks: (N, H, W) bool at network size, or None.
      metrics: fractions of 1, NaN where undefined.
      seconds: from images, or from where their features are kept, to scores; without metrics.
      fitted: what scores were measured against; None in the published form.
    """

    scores: Scores
    masks: np.ndarray | None
    metrics: dict[str, float]
    seconds: float
    fitted: Fitted | None


def fit(system: System, trained: TrainState, features: FeatureSets) -> Fitted:
    """Fits the calibration on training images and scores the held-out ones with it."""
    calibration = system.evaluator.calibrate(
        _likelihoods(system, trained, features.calibration, len(system.calibration_rows), "fit")
    )
    if features.holdout is None:
        return Fitted(calibration, np.zeros(0), np.zeros(0))
    seen = _likelihoods(system, trained, features.holdout, len(system.holdout), "fit")
    scores = system.evaluator.scores(seen, calibration)
    return Fitted(calibration, scores.image, scores.pixel.max(axis=(1, 2)))


def score(
    system: System, trained: TrainState, features: FeatureSets, fitted: Fitted | None
) -> Scored:
    """Scores the test images with the parameters of a state; None: in the published form."""
    started = time.perf_counter()
    seen = _likelihoods(system, trained, features.test, len(system.test), "evaluate")
    scores = system.evaluator.scores(seen, fitted.calibration if fitted else None)
    seconds = features.test.seconds + time.perf_counter() - started
    masks = seen.masks if system.test.has_masks else None
    values = metrics.evaluate(system.test.labels, scores.image, *_pixels(system, scores, masks))
    return Scored(scores, masks, values, seconds, fitted)


def _pixels(system: System, scores: Scores, masks: np.ndarray | None) -> tuple[Any, Any, Any]:
    """Masks, maps and maps for AUPRO, at the size at which the config wants them compared."""
    if masks is None or system.config.eval.mask_size == "network":
        return masks, scores.pixel, scores.overlap
    truth = system.native_masks
    overlap = None if scores.overlap is None else native.resized(scores.overlap, truth)
    return truth, native.resized(scores.pixel, truth), overlap


def _likelihoods(
    system: System, trained: TrainState, features: Features, count: int, title: str
) -> Likelihoods:
    variables = {"params": trained.params, "constants": trained.constants}
    return system.evaluator.likelihoods(variables, features.epoch(0), count, title)


def report(
    system: System, path: Path, timing: dict[str, Any], scored: Scored, rate: float
) -> dict[str, Any]:
    """Writes results.json, results.md and the pictures of a run; returns the results.

    Args:
      system: the run.
      path: its workdir.
      timing: see `timing_of`.
      scored: the state that is reported.
      rate: false-alarm rate of the thresholds.
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
        },
        "encoder": {key: system.encoder.source[key] for key in ("name", "weights", "sha256")},
        "seed": system.config.seed,
        "scoring": system.config.eval.scoring,
        "image_score": system.config.eval.image_score,
        "mask_size": system.config.eval.mask_size,
        "epochs": system.config.train.epochs,
        "columns": {"last": scored.metrics, **_chosen(path, system.config.eval.scoring)},
        "undefined": metrics.undefined(system.test.labels, scored.masks),
        "thresholds": _thresholds(system, scored, rate),
        "timing": _timing(system, timing, scored),
        "versions": results.versions(),
        "commands": [f"python eval.py --workdir={path.name}"],
        "pictures": _pictures(system, path, scored),
    }
    results.write(path, written)
    _write_page(system, path, written, scored)
    return written


def _write_page(system: System, path: Path, written: dict[str, Any], scored: Scored) -> None:
    """Writes report.html, unless the config wants none."""
    limit, fitted = system.config.eval.report_images, scored.fitted
    if not limit:
        return
    p_values = None
    if fitted is not None and len(fitted.image):
        p_values = conformal.p_values(scored.scores.image, fitted.image)
    html.write(
        path / "report.html",
        written,
        system.config,
        system.test,
        scored.scores,
        scored.masks,
        p_values,
        written["thresholds"].get("image"),
        limit=limit,
    )


def _thresholds(system: System, scored: Scored, rate: float) -> dict[str, Any]:
    """The calibration card, and what its threshold does on the test set."""
    fitted = scored.fitted
    if fitted is None or not len(fitted.image):
        return {}
    good = system.test.labels == 0
    card = conformal.card(fitted.image, fitted.peak, rate)
    flagged = conformal.p_values(scored.scores.image, fitted.image) <= card["promised"]
    test = {
        "false_alarms": int(np.sum(flagged & good)),
        "good": int(np.sum(good)),
        "detected": int(np.sum(flagged & ~good)),
        "anomalous": int(np.sum(~good)),
    }
    return {**card, "test": test}


def evaluate_workdir(
    directory: str | Path, scoring: str | None = None, rate: float | None = None
) -> dict[str, Any]:
    """Scores the newest checkpoint of a workdir again and rewrites its report.

    Args:
      directory: a workdir of `train`.
      scoring: ``"calibrated"`` or the name of the method's published form, instead of the
        config's choice.
      rate: false-alarm rate of the thresholds, instead of the config's.

    Raises:
      UserError: it is no workdir, the method has no such scoring, or the checkpoint is damaged.
    """
    with workdir.complete(directory):
        return _evaluate(Path(directory).absolute(), scoring, rate)


def _evaluate(path: Path, scoring: str | None, rate: float | None) -> dict[str, Any]:
    config = workdir.load_config(path)
    if scoring:
        config.eval.scoring = scoring
    if rate is not None:
        config.eval.false_alarm_rate = rate
    system = build(config)
    with closing(Checkpoints(path)) as checkpoints:
        restored, position, meta = state.restored(system, checkpoints)
    if position.epoch < config.train.epochs:
        log.warning("training stopped in epoch %d of %d", position.epoch, config.train.epochs)
    fitted = fit(system, restored, system.features) if scoring_is_calibrated(config) else None
    scored = score(system, restored, system.features, fitted)
    return report(system, path, timing_of(meta), scored, config.eval.false_alarm_rate)


def scoring_is_calibrated(config: config_dict.ConfigDict) -> bool:
    """Whether scores are measured against normal images."""
    return config.eval.scoring == "calibrated"


def timing_of(meta: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint knows about the time that a run took."""
    return {key: meta.get(key) for key in ("epoch_seconds", "features_seconds")}


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
    test, (image, maps, overlap) = system.test, scored.scores
    folder = path / "images"
    return [
        pictures.save_roc(folder / "roc.png", test.labels, image, scored.masks, maps, overlap),
        pictures.save_histogram(folder / "histogram.png", test.labels, test.kinds, image),
        *pictures.save_panels(folder, test, maps, image, per_kind=per_kind),
    ]
