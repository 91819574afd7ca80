"""The trained state of a workdir: from its newest checkpoint, or from a converted file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from flowad_jax.detector import calibration, checkpoint, converted, splits, workdir
from flowad_jax.detector.checkpoint import Position
from flowad_jax.detector.model import DetectorModel
from flowad_jax.errors import UserError
from flowad_jax.parallel import ALONE, Devices
from flowad_jax.settings import spelling
from flowad_jax.types import TrainState

_FITTED_FOR = ("calibration_images", "image_score")


def of_workdir(
    model: DetectorModel, path: Path, devices: Devices = ALONE, like: TrainState | None = None
) -> tuple[TrainState, Position, dict[str, Any]]:
    """Reads the state that a workdir ended with, whether it was trained here or converted.

    ``like`` is a state of the same shapes; without it the optimizer's is not read.

    Raises:
      UserError: there is none, it is damaged, or it belongs to other encoder weights.
    """
    shapes = model.variable_shapes
    if converted.is_converted(path):
        state, meta = converted.load(path, shapes)
        _check_meta(model, meta, path / converted.META)
        return devices.replicate(state), Position(model.config.train.epochs, 0), meta
    if like is None:
        step, rng = jax.eval_shape(lambda: (jnp.zeros((), jnp.int32), jax.random.key(0)))
        like = TrainState(step, shapes["params"], {}, shapes["buffers"], rng)
    state, position, meta = checkpoint.restore(path, like, devices)
    file = path / checkpoint.FOLDER / str(int(state.step)) / checkpoint.META
    _check_meta(model, meta, file)
    return state, position, meta


def split_of(path: Path, config: config_dict.ConfigDict) -> splits.Split | None:
    """Returns the images that a workdir's state was trained on, as far as they are there.

    None: there is no state, or it is of a version that did not keep their names.

    Raises:
      UserError: the state is damaged, or the data set is gone.
    """
    images = workdir.meta_of(path).get("images")
    return splits.again(config, images) if images else None


def fitted_of(meta: dict[str, Any], config: config_dict.ConfigDict) -> calibration.Fitted | None:
    """Returns what was fitted to normal images, if the config wants scores of the same kind."""
    then = spelling.read_stored(meta.get("config", {})).get("eval", {})
    other = any(key in then and then[key] != config.eval[key] for key in _FITTED_FOR)
    return calibration.from_json(meta["fitted"]) if "fitted" in meta and not other else None


def _check_meta(model: DetectorModel, meta: dict[str, Any], file: Path) -> None:
    """Raises a UserError if the meta in ``file`` belongs to another encoder or method."""
    trained_on, here = meta["encoder_sha256"], model.encoder.source["sha256"]
    if trained_on != here:
        raise UserError(
            f"encoder.weights '{model.encoder.source['weights']}' are not those of the run: "
            f"sha256 {here[:12]}..., but it was trained on {trained_on[:12]}..."
        )
    if "fitted" in meta:
        maps = [np.zeros((1, *shape), np.float32) for shape in model.likelihood_shapes]
        like = model.method.calibrate(maps, model.image_size)
        calibration.check_shapes(calibration.from_json(meta["fitted"]), like, file)
