"""Where a training state comes from: the seed of the config, or the newest checkpoint."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from flowad_jax.errors import UserError
from flowad_jax.training.checkpoint import Checkpoints, Position
from flowad_jax.training.step import init_state
from flowad_jax.training.system import System
from flowad_jax.types import TrainState


def check(system: System) -> None:
    """Asks the method whether it fits the encoder's feature maps, without computing anything.

    Raises:
      UserError: it does not.
    """
    jax.eval_shape(system.method.init, jax.random.key(0), system.feature_shapes)


def fresh(system: System) -> TrainState:
    """Draws the initial state that the config's seed stands for."""
    maps = tuple(jnp.zeros(shape.shape, shape.dtype) for shape in system.feature_shapes)
    return init_state(system.method, system.optimizer, maps, system.config.seed)


def restored(
    system: System, checkpoints: Checkpoints
) -> tuple[TrainState, Position, dict[str, Any]]:
    """Reads the newest checkpoint of a run of this system.

    Raises:
      UserError: there is none, or it was trained on other encoder weights.
    """
    state, position, meta = checkpoints.restore(fresh(system))
    trained_on, here = meta["encoder_sha256"], system.encoder.source["sha256"]
    if trained_on != here:
        raise UserError(
            f"encoder.weights '{system.encoder.source['weights']}' are not those of the run: "
            f"sha256 {here[:12]}..., but it was trained on {trained_on[:12]}..."
        )
    return state, position, meta
