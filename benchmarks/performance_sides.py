"""The sides of the performance benchmark, each for a process of its own.

Both start at images in the host's memory, as a loader leaves them:

    train      a whole training step: images to the device, the frozen encoder, then all gradient
               steps that the method makes of the batch
    infer      images to likelihood maps in the host's memory, `eval.batch_size` of them
    infer one  the same for a single image

Speed needs no data: images are noise, weights random. Frameworks are imported inside, so that a
process holds one of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import config_dict

JOBS = ("train", "infer", "infer one")
Job = Callable[[], Any]


class Given(NamedTuple):
    """What a side is told beside the recipe.

    Attributes:
      taps: indices of the encoder's feature maps.
      channels: of those maps.
      learns_from: what a training batch holds, see `flowad_jax.types.Method`.
      precision: ``"float32"`` or ``"tf32"``.
      freia: version of FrEIA's blocks, see `peers.freia`.
      compile_mode: of ``torch.compile``.
    """

    taps: tuple[int, ...]
    channels: tuple[int, ...]
    learns_from: str
    precision: str
    freia: str
    compile_mode: str


class Arrays(NamedTuple):
    """An image batch on the host: (B, S, S, 3) float32, (B, S, S) bool, (B,) int32."""

    image: np.ndarray
    mask: np.ndarray
    label: np.ndarray


def arrays(config: config_dict.ConfigDict, job: str, learns_from: str) -> Arrays:
    """Noise for a job; half of a batch that is no batch of normal images alone is synthetic."""
    rows = config.eval.batch_size if job == "infer" else 1
    if job == "train":
        rows = config.train.batch_size * (2 if learns_from == "pairs" else 1)
    side = config.data.image_size
    image = np.random.default_rng(0).standard_normal((rows, side, side, 3), np.float32)
    label, mask = np.zeros(rows, np.int32), np.zeros((rows, side, side), bool)
    if job == "train" and learns_from != "normal":
        label[(rows + 1) // 2 :] = 1
        mask[label == 1, side // 4 : side // 2, side // 4 : side // 2] = True
    return Arrays(image, mask, label)


class JaxSide:
    """The package's own model and training step."""

    def __init__(self, config: config_dict.ConfigDict, given: Given):
        """Draws encoder and flows."""
        import jax

        precision = {"float32": "highest", "tf32": "tensorfloat32"}[given.precision]
        jax.config.update("jax_default_matmul_precision", precision)
        from flowad_jax.training import state
        from flowad_jax.training.model import build_model

        self._config, self._given = config, given
        self._model = build_model(config)
        self._state: Any = state.fresh(self._model)
        self.device = jax.devices()[0].device_kind

    def prepare(self, job: str) -> Job:
        """Compiles nothing yet: that is what the first call does."""
        batch = arrays(self._config, job, self._given.learns_from)
        return self._train(batch) if job == "train" else self._infer(batch)

    def _train(self, given: Arrays) -> Job:
        from flowad_jax.training import schedules
        from flowad_jax.training.step import make_train_step
        from flowad_jax.types import Batch

        model, train = self._model, self._config.train
        schedule = schedules.constant(train.learning_rate, 1, 1)
        step = make_train_step(model.method, model.optimizer, schedule, train.clip_norm)
        weight = np.ones(len(given.image), np.float32)
        batch = Batch(None, given.mask, given.label, weight)

        def one_step() -> Any:
            self._state, metrics = step(self._state, self._maps(given.image), batch)
            return metrics["loss"]

        return one_step

    def _maps(self, image: np.ndarray) -> tuple[Any, ...]:
        """As `flowad_jax.features.batches.Encoded` has them."""
        import jax
        import jax.numpy as jnp

        maps = self._model.encode(self._model.encoder.variables, jax.device_put(image))
        return tuple(x.astype(jnp.float32) for x in maps)

    def _infer(self, given: Arrays) -> Job:
        def score() -> Any:
            variables = {"params": self._state.params, "constants": self._state.constants}
            return self._model.evaluator.log_probs(variables, self._maps(given.image))

        return score

    def start(self, job: str) -> None:
        """Forgets the largest use of memory, where that is possible."""
        forget_peak()

    def wait(self, result: Any) -> None:
        """Lets the device finish."""
        import jax

        jax.block_until_ready((self._state, result))

    def peak_bytes(self) -> int:
        """Largest use of memory: of the accelerator since the process began, or of the host."""
        import jax

        used = jax.local_devices()[0].memory_stats() or {}
        return int(used.get("peak_bytes_in_use", 0)) or host_peak_bytes()


class TorchSide:
    """The peers in PyTorch, as they are or compiled."""

    def __init__(self, config: config_dict.ConfigDict, given: Given, words: list[str]):
        """Draws encoder and flows; ``words`` are those of the side's name behind ``torch``."""
        import torch

        from peers import frozen, systems
        from peers.steps import Steps

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
        self._steps = Steps(self._system.module, config.train.to_dict())

    def _wrap(self, module: Any) -> Any:
        """Compiles; a method has several modules of one class, each with shapes of its own."""
        import torch

        if self._compiled is None:
            return module
        dynamo: Any = torch._dynamo.config
        for limit in ("recompile_limit", "cache_size_limit"):
            if hasattr(dynamo, limit):
                setattr(dynamo, limit, 64)
        return torch.compile(module, dynamic=False, **self._compiled)

    def prepare(self, job: str) -> Job:
        """Compiles nothing yet: that is what the first call does."""
        import torch

        from peers.steps import Rows

        given = arrays(self._config, job, self._given.learns_from)
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

        def infer() -> Any:
            with torch.no_grad():
                image = host[0].to(self._place, non_blocking=True)
                out = self._system.log_probs(self._encoder(image), image)
                return [x.cpu().numpy() for x in out]

        return train if job == "train" else infer

    def start(self, job: str) -> None:
        """Puts the modules into the job's mode and forgets the largest use of memory."""
        import torch

        self._system.module.train(job == "train")
        forget_peak()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()

    def wait(self, result: Any) -> None:
        """Lets the device finish."""
        import torch

        del result
        if self._cuda:
            torch.cuda.synchronize()

    def peak_bytes(self) -> int:
        """Largest use of memory since `start`: of the accelerator, or of the host."""
        import torch

        return torch.cuda.max_memory_allocated() if self._cuda else host_peak_bytes()


def forget_peak() -> None:
    """Lets the host's peak of this process start again from what it holds now (Linux)."""
    with contextlib.suppress(OSError):  # where it is forbidden, the peak is that of the process
        Path("/proc/self/clear_refs").write_text("5")


def host_peak_bytes() -> int:
    """Largest resident set of this process since `forget_peak` (Linux)."""
    # Not ru_maxrss: a new process starts with the peak of the one that started it.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
