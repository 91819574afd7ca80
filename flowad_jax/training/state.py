"""Where a training state comes from: the seed of the config, or the newest checkpoint."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from flowad_jax.errors import UserError
from flowad_jax.training.checkpoint import Checkpoints, Position
from flowad_jax.training.model import Model
from flowad_jax.training.step import init_state
from flowad_jax.types import TrainState


def check(model: Model) -> None:
    """Asks the method whether it fits the encoder's feature maps, without computing anything.

    Raises:
      UserError: it does not.
    """
    jax.eval_shape(model.method.init, jax.random.key(0), model.feature_shapes)


def fresh(model: Model) -> TrainState:
    """Draws the initial state that the config's seed stands for."""
    maps = tuple(jnp.zeros(shape.shape, shape.dtype) for shape in model.feature_shapes)
    return init_state(model.method, model.optimizer, maps, model.config.seed)


def restored(model: Model, checkpoints: Checkpoints) -> tuple[TrainState, Position, dict[str, Any]]:
    """Reads the newest checkpoint of a run of this model.

    Raises:
      UserError: there is none, or it was trained on other encoder weights.
    """
    state, position, meta = checkpoints.restore(fresh(model))
    trained_on, here = meta["encoder_sha256"], model.encoder.source["sha256"]
    if trained_on != here:
        raise UserError(
            f"encoder.weights '{model.encoder.source['weights']}' are not those of the run: "
            f"sha256 {here[:12]}..., but it was trained on {trained_on[:12]}..."
        )
    return state, position, meta
