"""Finds the detector of a finished run."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from flowad_jax import jax_config
from flowad_jax.data.pixels import describe
from flowad_jax.detector import folds, state, workdir
from flowad_jax.detector.calibration import Part
from flowad_jax.detector.model import build_model
from flowad_jax.errors import UserError
from flowad_jax.evaluation import conformal
from flowad_jax.inference.held_out import HeldOut
from flowad_jax.inference.predictor import Predictor
from flowad_jax.types import TrainState, Tree


def load(
    workdir_path: str | Path,
    false_alarm_rate: float | None = None,
    allow_import: Collection[str] = (),
    batch_size: int | None = None,
    threshold: float | None = None,
) -> Predictor:
    """Loads the detector that a run of ``flowad train`` ended with.

    Args:
      workdir_path: folder of the run.
      false_alarm_rate: largest probability of calling a normal image anomalous; None for that of
        the run's config.
      allow_import: packages whose functions the stored config may name, as in
        ``"mine.flows:build"``; nothing is imported from elsewhere.
      batch_size: most images that are computed at once; None for that of the run's config.
      threshold: image score above which an image is anomalous, instead of a false-alarm rate.

    Raises:
      UserError: the folder holds no finished run, the encoder's weights are not at hand, or the
        config names what may not be imported.
    """
    if not isinstance(workdir_path, str | os.PathLike):
        raise UserError(f"a workdir is {describe(workdir_path)}: give the folder of a run")
    path = Path(workdir_path).absolute()
    config = workdir.load_config(path, allow_import)
    if batch_size is not None:
        config.eval.batch_size = batch_size
    jax_config.enable_compilation_cache()
    if false_alarm_rate is not None:
        conformal.check_rate(false_alarm_rate)
        config.eval.false_alarm_rate = float(false_alarm_rate)
    model = build_model(config)
    if config.eval.calibration == "cross":
        found = folds.read(model, path, config)
        parts = [Part(_variables(fold.state), fold.fitted) for fold in found]
        return Predictor(model, parts, threshold, HeldOut(path, config))
    trained, position, meta = state.of_workdir(model, path)
    if "fitted" not in meta or position.epoch < config.train.epochs:
        raise UserError(
            f"the run in {path} stands at epoch {position.epoch} of {config.train.epochs}: "
            "finish it with the same flowad train command"
        )
    fitted = state.fitted_of(meta, config)
    if fitted is None:
        raise UserError(
            f"{path / workdir.CONFIG}: eval.image_score or eval.calibration_images is "
            "not what the thresholds were fitted with: put the old value back"
        )
    parts = [Part(_variables(trained), fitted)]
    return Predictor(model, parts, threshold, HeldOut(path, config))


def _variables(trained: TrainState) -> Tree:
    return {"params": trained.params, "buffers": trained.buffers}
