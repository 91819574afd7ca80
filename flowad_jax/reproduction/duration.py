"""How long a training will take on the device at hand, from its first steps."""

from __future__ import annotations

import time
from contextlib import closing
from typing import NamedTuple

import jax

from flowad_jax.training.experiment import Experiment
from flowad_jax.training.optimizer import fresh_state
from flowad_jax.training.step import make_train_step

STEPS = 3  # behind the first, which waits for the compiler


class Expected(NamedTuple):
    """What a training is expected to take.

    Attributes:
      seconds: for all epochs; evaluations come on top.
      per_step: seconds per batch, from image files to the updated state.
      compiling: seconds before the first step was done.
      device: its name.
    """

    seconds: float
    per_step: float
    compiling: float
    device: str


def expected(experiment: Experiment) -> Expected:
    """Takes some steps that nobody keeps, and extrapolates.

    Images are decoded and encoded in each of them; where features are computed once, later epochs
    are faster than this says.
    """
    config = experiment.config.train
    step = make_train_step(
        experiment.method,
        experiment.optimizer,
        experiment.schedule,
        config.clip_norm,
        experiment.devices,
    )
    state = experiment.devices.replicate(fresh_state(experiment))
    marks = [time.perf_counter()]
    with closing(experiment.features.train.epoch(0)) as batches:
        for batch, _ in zip(batches, range(1 + STEPS), strict=False):
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
            marks.append(time.perf_counter())
    compiling, taken = marks[1] - marks[0], marks[-1] - marks[1]
    per_step = taken / (len(marks) - 2) if len(marks) > 2 else compiling
    total = per_step * len(experiment.train_loader) * config.epochs
    kind = jax.devices()[0].device_kind
    count = experiment.devices.count
    return Expected(total, per_step, compiling, kind if count == 1 else f"{count} x {kind}")


def text(seconds: float) -> str:
    """A duration for people."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
