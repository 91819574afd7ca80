"""Our side of the performance benchmark; see `benchmarks.performance.jobs`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from benchmarks.performance.jobs import Arrays, Given, Job, arrays, forget_peak, host_peak_bytes
from flowad_jax.training import schedules, state
from flowad_jax.training.model import Model, build_model
from flowad_jax.training.step import make_train_step
from flowad_jax.types import Batch


def maps_of(model: Model, images: np.ndarray) -> tuple[jax.Array, ...]:
    """Feature maps of images on the host, as `flowad_jax.features.batches.Encoded` has them."""
    maps = model.encode(model.encoder.variables, jax.device_put(images))
    return tuple(x.astype(jnp.float32) for x in maps)


class JaxSide:
    """The package's own model and training step.

    Attributes:
      device: its kind.
      forgets: whether the peak of memory can start again.
    """

    def __init__(self, config: config_dict.ConfigDict, given: Given):
        """Draws encoder and flows."""
        config.precision = given.precision
        self._config, self._given = config, given
        self._model = build_model(config)
        self._state: Any = state.fresh(self._model)
        self.device = jax.devices()[0].device_kind
        self.forgets = jax.default_backend() == "cpu"

    def prepare(self, job: str) -> Job:
        """Compiles nothing yet: that is what the first call does."""
        batch = arrays(self._config, job, self._given.learns_from)
        return self._train(batch) if job == "train" else self._infer(batch)

    def _train(self, given: Arrays) -> Job:
        model, train = self._model, self._config.train
        schedule = schedules.constant(train.learning_rate, 1, 1)
        step = make_train_step(model.method, model.optimizer, schedule, train.clip_norm)
        weight = np.ones(len(given.image), np.float32)
        batch = Batch(None, given.mask, given.label, weight)

        def one_step() -> Any:
            self._state, metrics = step(self._state, maps_of(self._model, given.image), batch)
            return metrics["loss"]

        return one_step

    def _infer(self, given: Arrays) -> Job:
        def score() -> Any:
            variables = {"params": self._state.params, "constants": self._state.constants}
            return self._model.evaluator.log_probs(variables, maps_of(self._model, given.image))

        return score

    def start(self, job: str) -> None:
        """Forgets the largest use of memory, where that is possible."""
        forget_peak()

    def wait(self, result: Any) -> None:
        """Lets the device finish."""
        jax.block_until_ready((self._state, result))

    def peak_bytes(self) -> int:
        """Largest use of memory: of the accelerator since the process began, or of the host."""
        used = jax.local_devices()[0].memory_stats() or {}
        return int(used.get("peak_bytes_in_use", 0)) or host_peak_bytes()
