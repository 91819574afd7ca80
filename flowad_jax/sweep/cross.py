"""Thresholds to which every normal image contributes: one detector for each part held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_collections import config_dict

from flowad_jax import lock, parallel
from flowad_jax.detector import checkpoint, folds, splits, workdir
from flowad_jax.detector.model import build_model
from flowad_jax.errors import UserError
from flowad_jax.sweep import stack
from flowad_jax.sweep.plan import Trial
from flowad_jax.training import loop, rescore


def train(
    config: config_dict.ConfigDict, directory: str | Path, allow_changed_data: bool = False
) -> dict[str, Any]:
    """Trains a run, and where its calibration asks for them the detectors of its folds before.

    With ``eval.calibration="cross"`` these together are the detector; with ``"cross_fast"`` one
    follows that is trained on all images. Otherwise it is `loop.train`, which has the arguments.
    """
    kind = config.eval.calibration
    if kind == "split":
        return loop.train(config, directory, allow_changed_data)
    if parallel.host()[1] > 1:
        raise UserError(f"eval.calibration='{kind}' is for one host: use 'split' on a cluster")
    path = Path(directory).absolute()
    workdir.check(path, config)
    build_model(config)  # whatever is wrong with it is said before anything is written
    trials = _trials(config)
    with lock.owning(path):
        workdir.create_workdir(path, config)
        faults: list[str] = []
        place, epochs = path / folds.FOLDER, config.train.epochs
        stack.train(
            [trial for trial in trials if not _is_done(place / trial.folder, epochs)],
            place,
            lambda trial, fault: faults.append(f"fold {trial.folder}: {fault}") if fault else None,
            allow_changed_data,
        )
    if faults:
        raise UserError(f"{faults[0]} (the same command tries it again)")
    if kind == "cross":
        return rescore.evaluate(path, config)
    return loop.train(config, path, allow_changed_data)


def _trials(config: config_dict.ConfigDict) -> list[Trial]:
    """The runs of the folds; their batches are of one size, so that they share a program."""
    count = len(splits.draw(config).train)
    smallest = (count - -(-count // config.eval.folds)) * config.data.repeat
    found = []
    for number in range(config.eval.folds):
        own = folds.config_of(config, number)
        own.train.batch_size = max(1, min(own.train.batch_size, smallest))
        found.append(Trial(str(number), own))
    return found


def _is_done(folder: Path, epochs: int) -> bool:
    """Whether the detector of a fold was trained and reported."""
    trained = checkpoint.latest(folder) is not None and (folder / "results.json").exists()
    return trained and workdir.meta_of(folder)["position"][0] >= epochs
