"""The detectors of a cross-calibrated run, each in a folder of its own below that of the run.

The detector of a fold holds out its part of the normal images and trains on the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import config_dict

from flowad_jax.detector import calibration, config_schema, state, workdir
from flowad_jax.detector.model import DetectorModel
from flowad_jax.errors import UserError
from flowad_jax.settings import spelling
from flowad_jax.types import TrainState

FOLDER = "folds"
_FREE = (*workdir.FREE, *workdir.MOVABLE, "train.batch_size")


class Fold(NamedTuple):
    """A finished detector: its state, what was fitted with it, and its checkpoint's meta."""

    state: TrainState
    fitted: calibration.Fitted
    meta: dict[str, Any]


def config_of(config: config_dict.ConfigDict, number: int) -> config_dict.ConfigDict:
    """Returns the config of a fold's own run."""
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.data.fold = (number, config.eval.folds)
        own.eval.calibration = "split"
        own.eval.report_images = own.eval.pictures_per_kind = 0
    return own.lock()


def meta_of(path: Path, config: config_dict.ConfigDict) -> dict[str, Any]:
    """Reads what lies beside the state of a run; of folds, that of the first, with all images."""
    if config.eval.calibration != "cross":
        return workdir.meta_of(path)
    meta = workdir.meta_of(path / FOLDER / "0")
    if images := meta.get("images"):
        meta["images"] = {"train": {**images["train"], **images["holdout"]}, "holdout": {}}
    return meta


def read(model: DetectorModel, path: Path, config: config_dict.ConfigDict) -> list[Fold]:
    """Reads the detectors of all folds.

    Raises:
      UserError: one is missing, damaged, not finished, or of another run.
    """
    found = [_read(model, path, config, number) for number in range(config.eval.folds)]
    images = [fold.meta.get("images", {}) for fold in found]
    every = [{**one.get("train", {}), **one.get("holdout", {})} for one in images]
    held = [name for one in images for name in one.get("holdout", {})]
    if any(one != every[0] for one in every) or sorted(held) != sorted(every[0]):
        raise UserError(f"{path / FOLDER} holds detectors of different images: train anew")
    return found


def _read(model: DetectorModel, path: Path, config: config_dict.ConfigDict, number: int) -> Fold:
    folder, again = path / FOLDER / str(number), "give the command that trained the run again"
    if not workdir.meta_of(folder):
        raise UserError(f"{folder} holds no detector: {again}")
    trained, position, meta = state.of_workdir(model, folder)
    if "fitted" not in meta or position.epoch < config.train.epochs:
        raise UserError(f"{folder} stands at epoch {position.epoch}: {again}")
    stored = spelling.read_stored(meta["config"])
    wanted = config_schema.plain(config_of(config, number))
    if difference := workdir.first_difference(wanted, stored, _FREE):
        raise UserError(f"{folder} holds a detector of another run ({difference}): train anew")
    fitted = state.fitted_of(meta, config)
    if fitted is None:
        raise UserError(
            f"{path / workdir.CONFIG}: eval.image_score or eval.calibration_images is "
            "not what the thresholds were fitted with: put the old value back"
        )
    return Fold(trained, fitted, meta)
