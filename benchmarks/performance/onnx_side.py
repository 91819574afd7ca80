"""The exported side of the performance benchmark; see `benchmarks.performance.jobs`."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from benchmarks.performance.jobs import Given, HostSide, Job, arrays
from flowad_jax.detector.model import build_model
from flowad_jax.flowad_runtime import graph
from flowad_jax.onnx.convert import convert
from flowad_jax.training.optimizer import fresh_state
from flowad_jax.types import Batch


class OnnxSide(HostSide):
    """Our model as ONNX, run as an exported detector is; its memory holds JAX, which converts."""

    def __init__(self, config: config_dict.ConfigDict, given: Given, backend: str):
        """Draws encoder and flows; ``backend`` is one of `jobs.EXPORTED`."""
        self._config, self._given, self._backend = config, given, backend
        self._model = build_model(config)
        state = fresh_state(self._model)
        self._variables = {"params": state.params, "buffers": state.buffers}

    def prepare(self, job: str) -> Job:
        """Converts the model for images of the job's number."""
        image = arrays(self._config, job, self._given.batch_kind).image
        shape = jax.ShapeDtypeStruct(image.shape, np.float32)
        names = [f"scale {scale}" for scale in range(len(self._model.batch_shapes.maps))]
        content = convert(self._log_probs, {"image": shape}, names).SerializeToString()
        threads = len(os.sched_getaffinity(0))
        run = graph.load(content, self._backend, threads, self._config.method.name, names)
        return lambda: run({"image": image})

    def _log_probs(self, image: Any) -> tuple[Any, ...]:
        seen: Batch = self._model.encode(self._model.encoder.variables, image)
        return tuple(self._model.method.log_probs(self._variables, seen))
