"""Scores the newest checkpoint of a workdir again: on its own test images, or on others."""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import config_dict

from flowad_jax import files, parallel
from flowad_jax.data import later_test
from flowad_jax.data.record import Source
from flowad_jax.detector import folds, splits, state, workdir
from flowad_jax.errors import UserError
from flowad_jax.evaluation import metrics
from flowad_jax.report import results
from flowad_jax.training import metrics_log, summary
from flowad_jax.training.experiment import build
from flowad_jax.training.scoring import Scored, score, score_together

log = logging.getLogger("flowad_jax")

BEST_F1 = "best_f1"  # a threshold that is shown, and kept nowhere
FOLDER = "eval"  # in the workdir, for reports on other images
_COLUMNS = ("path", "kind", "score", "p_value", "anomalous")


def evaluate_workdir(
    directory: str | Path,
    scoring: str | None = None,
    rate: float | None = None,
    allow_import: Collection[str] = (),
    threshold: float | str | None = None,
    data: str | None = None,
) -> dict[str, Any]:
    """Scores the newest checkpoint of a workdir again and rewrites its report.

    Args:
      directory: a workdir of `train`.
      scoring: ``"calibrated"`` or the method's published form; None: as the config says.
      rate: false-alarm rate of the thresholds; None: as the config says.
      allow_import: packages whose functions the stored config may name.
      threshold: image score that decides instead of a rate; or ``"best_f1"``, which changes nothing
        but adds the line ``best_f1`` to what is returned.
      data: other images than those of the run's data set, see `later_test.source`; their report
        has a folder of its own, see `report_folder`.

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
    return evaluate(path, config, threshold, data)


def evaluate(
    path: Path,
    config: config_dict.ConfigDict,
    threshold: float | str | None = None,
    data: str | None = None,
) -> dict[str, Any]:
    """Does what `evaluate_workdir` does, with a config that is trusted."""
    metrics_log.read(path)  # what is damaged is refused before anything is computed
    with parallel.outputs(path) as outputs:
        meta = folds.meta_of(path, config)
        done, _ = meta.get("position", (config.train.epochs, 0))  # one that was converted is done
        fitted = state.fitted_of(meta, config)
        if done < config.train.epochs:
            log.warning("training stopped in epoch %d of %d", done, config.train.epochs)
            fitted = None  # if there is one, it belongs to another state
        fits = fitted is None and config.eval.scoring == "calibrated"
        test = _later_images(data, path, config, meta) if data else splits.source(config, "test")
        split = _normal_images(path, config, meta, opens=fits or not len(test))
        experiment = build(config, split=split, for_training=False, test=test)
        given = None if isinstance(threshold, str) else threshold
        if config.eval.calibration == "cross":
            parts = [(fold.state, fold.fitted) for fold in folds.read(experiment, path, config)]
            scored = score_together(experiment, parts, experiment.features, given)
        else:
            restored, *_ = state.of_workdir(experiment, path, experiment.devices)
            scored = score(experiment, restored, experiment.features, fitted, given)
        folder = report_folder(outputs, data) if data else outputs
        written = summary.report(experiment, outputs, meta, scored, data, folder)
        if data:
            _write_predictions(folder, experiment.test, scored)
        if isinstance(threshold, str):  # the test set's own choice: shown, and kept nowhere
            written = {**written, BEST_F1: _best_f1(experiment.test.labels, scored.scores.image)}
        return written


def _normal_images(
    path: Path, config: config_dict.ConfigDict, meta: dict[str, Any], opens: bool
) -> splits.Split | None:
    """The images that a run was trained on and held out; without ``opens`` only their names.

    None: an old checkpoint does not know them.
    """
    images = meta.get("images")
    if images is None:
        if opens:
            log.warning("%s does not say which images it was trained on", path)
        return None
    if not opens:
        if "findings" not in meta:
            log.warning("%s does not say what was doubtful about its training images", path)
        return splits.names_only(images)
    split = splits.again(config, images)
    if found := splits.differences(images, splits.listed(config, split)):
        raise splits.refused(path, found)
    return split


def _later_images(
    data: str, path: Path, config: config_dict.ConfigDict, meta: Mapping[str, Any]
) -> Source:
    """Lists images to test the detector of a workdir on.

    Raises:
      UserError: there are none, they are not as they should be, or the detector knows some.
    """
    options = config.data.options.to_dict()
    found = later_test.source(data, config.data.category or "", options, path)
    if "images" not in meta:
        log.warning("%s does not say which images it was trained on: make sure of it", path)
    later_test.check_new(found, meta.get("images", {}), data)
    return found


def report_folder(path: Path, data: str) -> Path:
    """The folder of a workdir for the report on some images: named like theirs, one for each."""
    place = os.path.abspath(data)
    name = re.sub(r"[^\w.-]+", "-", Path(place).name).strip("-.") or "images"
    for number in itertools.count(1):
        found = path / FOLDER / (name if number == 1 else f"{name}-{number}")
        if not (found / "results.json").exists():
            return found
        if results.read(found).get("data", {}).get("test_root") == place:
            return found
    raise AssertionError("numbers do not end")


def _write_predictions(path: Path, test: Source, scored: Scored) -> None:
    """Writes ``predictions.csv``: a line for each image; without a threshold nothing is decided."""
    lines, flagged = [files.csv_row(_COLUMNS)], scored.flagged
    for row, (name, kind) in enumerate(zip(test.paths, test.kinds, strict=True)):
        p_value = None if scored.p_values is None else float(scored.p_values[row])
        decided = None if flagged is None else bool(flagged[row])
        lines.append(files.csv_row([name, kind, float(scored.scores.image[row]), p_value, decided]))
    files.write_text(path / "predictions.csv", "".join(lines))


def read_threshold(text: str | None) -> float | str | None:
    """Reads the flag: a score, ``"best_f1"``, or None.

    Raises:
      UserError: it is something else.
    """
    try:
        value = text if text in (None, BEST_F1) else float(text)
        if not isinstance(value, float) or math.isfinite(value):
            return value
    except ValueError:
        pass
    raise UserError(f"--threshold={text}: give a score, such as 0.5, or {BEST_F1}")


def _best_f1(labels: np.ndarray, scores: np.ndarray) -> str:
    """Says which threshold would suit the labels of the test images best."""
    if metrics.undefined(labels, None).get("image_auroc"):
        return "best F1: not defined, the test images have only one label"
    f1, best = metrics.best_f1(labels, scores)
    flagged = scores > best
    false_alarms, good = int(np.sum(flagged & (labels == 0))), int(np.sum(labels == 0))
    detected, anomalous = int(np.sum(flagged & (labels == 1))), int(np.sum(labels == 1))
    return (
        f"best F1 on these test images: {100 * f1:.2f} with --threshold={best:.9g}, which flags "
        f"{false_alarms} of {good} good and {detected} of {anomalous} anomalous images (chosen by "
        "their labels: no result, and not kept)"
    )
