"""PyTorch's side of the performance benchmark; see `benchmarks.performance.jobs`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from ml_collections import config_dict

from benchmarks.performance.jobs import Given, Job, arrays, forget_peak, host_peak_bytes
from peers import frozen, systems
from peers.steps import Rows, Steps


class TorchSide:
    """The peers in PyTorch, as they are or compiled; for attributes see `JaxSide`."""

    forgets = True

    def __init__(self, config: config_dict.ConfigDict, given: Given, words: list[str]):
        """Draws encoder and flows; ``words`` are those of the side's name behind ``torch``."""
        tf32 = given.precision == "tf32"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True  # shapes never change
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.manual_seed(0)
        np.random.seed(0)
        self._cuda = torch.cuda.is_available()
        self._place = torch.device("cuda" if self._cuda else "cpu")
        self.device = torch.cuda.get_device_name() if self._cuda else "cpu"
        last = "channels_last" in words
        self._format = torch.channels_last if last else torch.contiguous_format
        self._compiled = {"mode": given.compile_mode} if "compile" in words else None
        self._config, self._given = config, given
        size = config.data.image_size
        network = frozen.build(config.encoder.to_dict(), given.taps, size)
        self._encoder = self._wrap(network.to(self._place, memory_format=self._format))
        method, version = config.method.to_dict(), given.freia
        self._system = systems.build(given.channels, method, version=version, wrap=self._wrap)
        self._system.module.to(self._place, memory_format=self._format)
        idle = config.method.name == "cflow"
        self._steps = Steps(self._system.module, config.train.to_dict(), idle)

    def _wrap(self, module: Any) -> Any:
        """Compiles; a method has several modules of one class, each with shapes of its own."""
        if self._compiled is None:
            return module
        dynamo: Any = torch._dynamo.config
        for limit in ("recompile_limit", "cache_size_limit"):
            if hasattr(dynamo, limit):
                setattr(dynamo, limit, 64)
        return torch.compile(module, dynamic=False, **self._compiled)

    def prepare(self, job: str) -> Job:
        """Compiles nothing yet: that is what the first call does."""
        given = arrays(self._config, job, self._given.batch_kind)
        image = torch.from_numpy(np.ascontiguousarray(given.image.transpose(0, 3, 1, 2)))
        image = image.contiguous(memory_format=self._format)
        host = [image, torch.from_numpy(given.mask), torch.from_numpy(given.label)]
        if self._cuda:
            host = [x.pin_memory() for x in host]  # as a DataLoader does for CUDA

        def placed() -> Rows:
            return Rows(*(x.to(self._place, non_blocking=True) for x in host))

        def train() -> Any:
            rows = placed()
            with torch.no_grad():
                maps = self._encoder(rows.image)
            return self._steps.take(self._system.losses(maps, rows))

        return train if job == "train" else lambda: self._log_probs(host[0])

    @torch.no_grad()
    def _log_probs(self, image: torch.Tensor) -> list[np.ndarray]:
        placed = image.to(self._place, non_blocking=True)
        out = self._system.log_probs(self._encoder(placed), placed)
        return [x.cpu().numpy() for x in out]

    def log_probs(self, image: np.ndarray) -> list[np.ndarray]:
        """Likelihood maps (B, h, w) of normalised images (B, H, W, 3)."""
        rows = torch.from_numpy(image.transpose(0, 3, 1, 2))
        return self._log_probs(rows.contiguous(memory_format=self._format))

    def start(self, job: str) -> None:
        """Puts the modules into the job's mode and forgets the largest use of memory."""
        self._system.module.train(job == "train")
        forget_peak()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()

    def wait(self, result: Any) -> None:
        """Lets the device finish."""
        del result
        if self._cuda:
            torch.cuda.synchronize()

    def peak_bytes(self) -> int:
        """Largest use of memory since `start`: of the accelerator, or of the host."""
        return torch.cuda.max_memory_allocated() if self._cuda else host_peak_bytes()
