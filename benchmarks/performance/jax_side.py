"""Our side of the performance benchmark; see `benchmarks.performance.jobs`."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from benchmarks.performance.jobs import Arrays, Given, Job, arrays, forget_peak, host_peak_bytes
from flowad_jax.detector.model import DetectorModel, build_model
from flowad_jax.training import schedules
from flowad_jax.training.optimizer import fresh_state, make_optimizer
from flowad_jax.training.step import make_train_step
from flowad_jax.types import Batch


def batch_of(model: DetectorModel, given: Arrays) -> Batch:
    """A batch with feature maps, of images on the host; all rows count."""
    seen = model.encode(model.encoder.variables, jax.device_put(given.image))
    weight = np.ones(len(given.image), np.float32)
    return seen._replace(mask=given.mask, label=given.label, weight=weight)


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
        self._state: Any = fresh_state(self._model)
        self.device = jax.devices()[0].device_kind
        self.forgets = jax.default_backend() == "cpu"

    def prepare(self, job: str) -> Job:
        """Compiles nothing yet: that is what the first call does."""
        batch = arrays(self._config, job, self._given.batch_kind)
        return self._train(batch) if job == "train" else self._infer(batch)

    def _train(self, given: Arrays) -> Job:
        model, train = self._model, self._config.train
        schedule = schedules.constant(train.learning_rate, 1, 1)
        step = make_train_step(model.method, make_optimizer(train), schedule, train.clip_norm)

        def one_step() -> Any:
            self._state, metrics = step(self._state, batch_of(self._model, given))
            return metrics["loss"]

        return one_step

    def _infer(self, given: Arrays) -> Job:
        def score() -> Any:
            variables = {"params": self._state.params, "buffers": self._state.buffers}
            return self._model.evaluator.log_probs(variables, batch_of(self._model, given))

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
