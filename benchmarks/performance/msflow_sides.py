"""The two sides of the MSFlow benchmark, each for a process of its own.

A side prepares one job at a time and hands out a function that does it once:

    score maps     likelihood maps from pooled features
    train maps     a gradient step on them: clipped, then Adam
    score images   the same as the first, encoder included
    train images   the same as the second, encoder included

Frameworks are imported inside, so that a process holds one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import config_dict

JOBS = ("score maps", "train maps", "score images", "train images")
Job = Callable[[], Any]


class Features(NamedTuple):
    """What the encoder of a recipe returns.

    Attributes:
      taps: indices of the feature maps.
      shapes: (h, w, C) of every pooled map, shallow first.
    """

    taps: tuple[int, ...]
    shapes: tuple[tuple[int, int, int], ...]


def images(config: config_dict.ConfigDict) -> np.ndarray:
    """A batch (B, S, S, 3) of noise."""
    size = config.data.image_size
    shape = (config.train.batch_size, size, size, 3)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def noise(config: config_dict.ConfigDict, features: Features) -> list[np.ndarray]:
    """A batch of maps (B, h, w, C) with normal features."""
    rng, batch = np.random.default_rng(0), config.train.batch_size
    return [rng.standard_normal((batch, *shape), np.float32) for shape in features.shapes]


class JaxSide:
    """Our detector."""

    def __init__(self, config: config_dict.ConfigDict):
        """Loads the encoder and asks it for the shapes of its maps."""
        import jax

        from flowad_jax import lookup
        from flowad_jax.encoders.load import load
        from flowad_jax.training import schedules
        from flowad_jax.training.optimizer import Adam

        self._config = config
        self._encoder = load(seed=config.seed, **config.encoder)
        options = config.method.to_dict()
        self._method = lookup.find("flowad_jax.methods", options.pop("name"))(**options)
        rate = schedules.constant(config.train.learning_rate, 1, 1)
        self._training = (self._method, Adam(), rate, config.train.clip_norm)
        found = jax.eval_shape(self._encoder.apply, self._encoder.variables, images(config))
        self.features = Features(self._encoder.taps, tuple(x.shape[1:] for x in found))
        self._state: Any = None

    def prepare(self, job: str) -> Job:
        """Compiles nothing yet: that is what the first call does."""
        task, source = job.split()
        encode = self._maps(source)
        return self._score(encode) if task == "score" else self._train(encode)

    def _maps(self, source: str) -> Callable[[], Any]:
        """Gives maps: there already, or from the encoder. As in training, a program of its own."""
        import jax

        if source == "maps":
            maps = jax.device_put(tuple(noise(self._config, self.features)))
            return lambda: maps
        encode, image = jax.jit(self._encoder.apply), jax.device_put(images(self._config))
        return lambda: encode(self._encoder.variables, image)

    def _score(self, encode: Callable[[], Any]) -> Job:
        import jax

        from flowad_jax.types import Batch

        log_probs, variables = jax.jit(self._method.log_probs), self._trained()
        return lambda: [np.asarray(m) for m in log_probs(variables, Batch(encode()))]

    def _trained(self) -> Any:
        """Parameters and buffers, from training if there was any: scoring needs no more."""
        import jax

        from flowad_jax.types import Batch

        if self._state is not None:
            return {"params": self._state.params, "buffers": self._state.buffers}
        shapes = tuple(noise(self._config, self.features))
        return jax.jit(lambda rng: self._method.init(rng, Batch(shapes)))(jax.random.key(0))

    def _train(self, encode: Callable[[], Any]) -> Job:
        import jax

        from flowad_jax.training.optimizer import init_state
        from flowad_jax.training.step import make_train_step
        from flowad_jax.types import Batch

        if self._state is None:
            maps = tuple(map(jax.numpy.asarray, noise(self._config, self.features)))
            self._state = init_state(*self._training[:2], Batch(maps), seed=0)
        step = make_train_step(*self._training)
        weight = np.ones(self._config.train.batch_size, np.float32)

        def one_step() -> float:
            self._state, metrics = step(self._state, Batch(encode(), weight=weight))
            jax.block_until_ready(self._state)
            return float(metrics["loss"])

        return one_step


class TorchSide:
    """The peer: FrEIA's flows behind the encoder of torchvision or efficientnet-lite-pytorch."""

    def __init__(self, config: config_dict.ConfigDict, features: Features, channels_last: bool):
        """Draws the flows for the maps of our encoder."""
        import torch

        from peers import msflow as freia_msflow

        self._config, self.features = config, features
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        options = {key: config.method[key] for key in ("condition", "blocks", "clamp")}
        channels = [shape[-1] for shape in features.shapes]
        self._model = self._placed(freia_msflow.MSFlow(channels, **options))
        self._trainer = freia_msflow.Trainer(self._model, config.train.clip_norm)

    def _placed(self, module_or_map: Any) -> Any:
        return module_or_map.to(self._device, memory_format=self._format)

    def prepare(self, job: str) -> Job:
        """Raises LookupError or ImportError where PyTorch has no such encoder."""
        import torch

        def placed(array: np.ndarray) -> torch.Tensor:
            return self._placed(torch.from_numpy(array.transpose(0, 3, 1, 2)).contiguous())

        task, source = job.split()
        if source == "maps":
            inputs: Any = [placed(array) for array in noise(self._config, self.features)]
            encode: Callable = list
        else:
            inputs, encode = placed(images(self._config)), self._encoder()
        rate = self._config.train.learning_rate
        if task == "score":
            return lambda: [m.cpu().numpy() for m in self._model.log_probs(encode(inputs))]
        return lambda: self._trainer.step(encode(inputs), rate)

    def _encoder(self) -> Callable[[Any], list]:
        """A function from images to the pooled maps of the taps."""
        import torch

        from peers import frozen

        section, side = self._config.encoder.to_dict(), self._config.data.image_size
        network = self._placed(frozen.build(section, self.features.taps, side))
        return torch.no_grad()(network)


def seconds(job: Job) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def forget_peak() -> None:
    """Lets the peak of this process start again from what it holds now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
