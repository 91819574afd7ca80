"""Where a state comes from: the seed of the config, the newest checkpoint, or a converted file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from flowad_jax.errors import UserError
from flowad_jax.evaluation import fitted
from flowad_jax.parallel import ALONE, Devices
from flowad_jax.training import checkpoint, converted, splits
from flowad_jax.training.checkpoint import META, Checkpoints, Position
from flowad_jax.training.model import Model
from flowad_jax.training.step import init_state
from flowad_jax.types import TrainState

_FITTED_FOR = ("calibration_images", "image_score", "top")


def check(model: Model) -> None:
    """Asks the method whether it fits the encoder's feature maps, without computing anything.

    Raises:
      UserError: it does not.
    """
    variable_shapes(model)


def fresh(model: Model) -> TrainState:
    """Draws the initial state that the config's seed stands for."""
    maps = tuple(jnp.zeros(shape.shape, shape.dtype) for shape in model.feature_shapes)
    return init_state(model.method, model.optimizer, maps, model.config.seed)


def of_workdir(
    model: Model, path: Path, devices: Devices = ALONE
) -> tuple[TrainState, Position, dict[str, Any]]:
    """Reads the state that a workdir ended with, whether it was trained here or converted.

    Raises:
      UserError: there is none, or it belongs to other encoder weights.
    """
    if not converted.is_converted(path):
        with closing(Checkpoints(path)) as checkpoints:
            return restored(model, checkpoints, devices)
    state, meta = converted.load(path, variable_shapes(model))
    _check_meta(model, meta, path / converted.META)
    return devices.everywhere(state), Position(model.config.train.epochs, 0), meta


def restored(
    model: Model, checkpoints: Checkpoints, devices: Devices = ALONE
) -> tuple[TrainState, Position, dict[str, Any]]:
    """Reads the newest checkpoint of a run of this model onto the devices.

    Raises:
      UserError: there is none, or it was trained on other encoder weights.
    """
    state, position, meta = checkpoints.restore(devices.everywhere(fresh(model)))
    _check_meta(model, meta, checkpoints.folder(int(state.step)) / META)
    return state, position, meta


def meta_of(path: Path) -> dict[str, Any]:
    """What lies beside the state of a workdir, see `of_workdir`; nothing if there is no state.

    Raises:
      UserError: it is damaged.
    """
    if converted.is_converted(path):
        return converted.load_meta(path)
    steps = checkpoint.steps(path)
    return checkpoint.read_meta(path, steps[-1]) if steps else {}


def split_of(path: Path, config: config_dict.ConfigDict) -> splits.Split | None:
    """The images that a workdir's state was trained on, as far as they are there.

    None: there is no state, or it is of a version that did not keep their names.

    Raises:
      UserError: the state is damaged, or the data set is gone.
    """
    images = meta_of(path).get("images")
    return splits.again(config, images) if images else None


def fitted_of(meta: dict[str, Any], config: config_dict.ConfigDict) -> fitted.Fitted | None:
    """What was fitted to normal images, if that was for scores such as the config wants."""
    then = meta.get("config", {}).get("eval", {})
    other = any(key in then and then[key] != config.eval[key] for key in _FITTED_FOR)
    return fitted.from_json(meta["fitted"]) if "fitted" in meta and not other else None


def variable_shapes(model: Model) -> dict[str, Any]:
    """The method's ``params`` and ``constants`` as `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(model.method.init, jax.random.key(0), model.feature_shapes)


def _check_meta(model: Model, meta: dict[str, Any], file: Path) -> None:
    """Raises a UserError if what lies beside a state belongs to another encoder or method."""
    trained_on, here = meta["encoder_sha256"], model.encoder.source["sha256"]
    if trained_on != here:
        raise UserError(
            f"encoder.weights '{model.encoder.source['weights']}' are not those of the run: "
            f"sha256 {here[:12]}..., but it was trained on {trained_on[:12]}..."
        )
    if "fitted" in meta:
        sides = model.feature_shapes[: len(model.encoder.taps)]
        maps = [np.zeros(shape.shape[:3], np.float32) for shape in sides]
        like = model.method.calibrate(maps, (model.image_size, model.image_size))
        fitted.check_shapes(fitted.from_json(meta["fitted"]), like, file)
