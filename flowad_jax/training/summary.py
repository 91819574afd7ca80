"""Scores a state on the test set and writes what a person reads: results and pictures."""

from __future__ import annotations

import logging
import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.evaluation import metrics, pictures, results
from flowad_jax.features.batches import FeatureSets
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
    """

    scores: Scores
    masks: np.ndarray | None
    metrics: dict[str, float]
    seconds: float


def score(system: System, trained: TrainState, features: FeatureSets) -> Scored:
    """Scores the test images with the parameters of a state."""
    variables = {"params": trained.params, "constants": trained.constants}
    evaluator, config = system.evaluator, system.config.eval
    calibration = None
    if config.scoring == "calibrated":
        count = len(system.calibration_rows)
        batches = features.calibration.epoch(0)
        calibration = evaluator.calibrate(
            evaluator.likelihoods(variables, batches, count, "calibrate")
        )
    started = time.perf_counter()
    batches = features.test.epoch(0)
    seen = evaluator.likelihoods(variables, batches, len(system.test), "evaluate")
    scores = evaluator.scores(seen, calibration)
    seconds = features.test.seconds + time.perf_counter() - started
    masks = seen.masks if system.test.has_masks else None
    values = metrics.evaluate(system.test.labels, scores.image, masks, scores.pixel, scores.overlap)
    return Scored(scores, masks, values, seconds)


def report(
    system: System, trained: TrainState, path: Path, timing: dict[str, Any], scored: Scored | None
) -> dict[str, Any]:
    """Writes results.json, results.md and the pictures of a finished run; returns the results."""
    scored = scored or score(system, trained, system.features)
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
        "epochs": system.config.train.epochs,
        "columns": {"last": scored.metrics, **_chosen(path, system.config.eval.scoring)},
        "undefined": metrics.undefined(system.test.labels, scored.masks),
        "timing": _timing(system, timing, scored),
        "versions": results.versions(),
        "commands": [f"python eval.py --workdir={path.name}"],
        "pictures": _pictures(system, path, scored),
    }
    results.write(path, written)
    return written


def evaluate_workdir(directory: str | Path, scoring: str | None = None) -> dict[str, Any]:
    """Scores the newest checkpoint of a workdir again and rewrites its report.

    Args:
      directory: a workdir of `train`.
      scoring: ``"calibrated"`` or the name of the method's published form, instead of the
        config's choice.

    Raises:
      UserError: it is no workdir, the method has no such scoring, or the checkpoint is damaged.
    """
    config = workdir.load_config(directory)
    if scoring:
        config.eval.scoring = scoring
    path = Path(directory).absolute()
    system = build(config)
    with closing(Checkpoints(path)) as checkpoints:
        restored, position, meta = state.restored(system, checkpoints)
    if position.epoch < config.train.epochs:
        log.warning("training stopped in epoch %d of %d", position.epoch, config.train.epochs)
    return report(system, restored, path, timing_of(meta), None)


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
