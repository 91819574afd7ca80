"""Which bound on the log-scales a detector was trained with, where its file does not tell.

FrEIA changed the bound in August 2023 without a trace in the tensors (`flows.coupling.CLAMPS`).
The one that was trained with makes normal images likelier.
"""

from __future__ import annotations

from contextlib import closing

import jax

from flowad_jax.conversion.settings import changed
from flowad_jax.errors import UserError
from flowad_jax.training.model import call
from flowad_jax.training.step import make_loss
from flowad_jax.training.system import System
from flowad_jax.types import TrainState

KEY = "method.clamp_kind"
LEAST = 1e-3  # nats per dimension; less is no evidence


def losses(system: System, state: TrainState, kinds: tuple[str, ...]) -> dict[str, float]:
    """Mean training loss, per dimension, of a batch of normal images for each bound.

    Args:
      system: the run; its own bound does not matter.
      state: the detector.
      kinds: names of bounds.
    """
    with closing(system.features.calibration.epoch(0)) as batches:
        maps, batch = next(iter(batches))
    found = {}
    for kind in kinds:
        method = call("method", "flowad_jax.methods", changed(system.config, **{KEY: kind}).method)
        found[kind] = float(jax.device_get(make_loss(method)(state, maps, batch)))
    return found


def choose(found: dict[str, float]) -> str:
    """The bound with the lowest loss.

    Raises:
      UserError: two are as good.
    """
    best, second = sorted(found, key=found.__getitem__)[:2]
    if not found[second] - found[best] > LEAST:
        values = ", ".join(f"{kind} {loss:.6f}" for kind, loss in found.items())
        raise UserError(
            f"the file does not tell its clamp, and normal images do not either ({values} nats per "
            "dimension): give --clamp, 'tanh' for FrEIA before August 2023, else 'tanh_ratio'"
        )
    return best
