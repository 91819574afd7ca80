"""Which part of training is the bottleneck: the loader with synthesis, the encoder or the step.

    python -m benchmarks.training_feed --config=configs/ssnf_textures.py --output=feed.json

Each part runs alone and then all together, as in training; images per second count clean images.
Threads of the loader share the cores with the rest: what they cost is what the whole takes longer
than encoder and gradient step alone.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from benchmarks import _common
from flowad_jax.training import state
from flowad_jax.training.step import make_train_step
from flowad_jax.training.system import System, build
from flowad_jax.types import Batch

PARTS = LOADER, ENCODER, STEP, LOOP = "loader", "encoder", "gradient step", "all together"


class Training:
    """The gradient step of a system and the state that it goes on from."""

    def __init__(self, system: System):
        """Draws fresh parameters."""
        clip_norm = system.config.train.clip_norm
        schedule = system.schedule
        self._step = make_train_step(system.method, system.optimizer, schedule, clip_norm)
        self._state = state.fresh(system)

    def train(self, features: Iterable[tuple]) -> None:
        """Trains on maps and batches; waits for the last step."""
        for maps, batch in features:
            self._state, _ = self._step(self._state, maps, batch)
        jax.block_until_ready(self._state)


class Job(NamedTuple):
    """Something to time.

    Attributes:
      part: what it is.
      workers: threads of the loader, if it takes part.
      images: clean images per call.
      call: ``(turn)`` does it once.
    """

    part: str
    workers: int | None
    images: int
    call: Callable[[int], None]


def with_loader(system: System, workers: int) -> System:
    """The same parts with a loader of so many threads."""
    system.config.data.workers = workers
    return dataclasses.replace(system, train_loader=build(system.config).train_loader)


def feeding_jobs(system: System, workers: int, training: Training) -> list[Job]:
    """Epochs of batches that nobody uses, and epochs of training."""
    system = with_loader(system, workers)

    def load(turn: int) -> None:
        for _ in system.train_loader.epoch(turn):
            pass

    def loop(turn: int) -> None:
        with closing(system.features.train.epoch(turn)) as features:
            training.train(features)

    images = system.images_per_epoch
    return [Job(LOADER, workers, images, load), Job(LOOP, workers, images, loop)]


def computing_jobs(system: System, training: Training, batches: int) -> list[Job]:
    """Encoder and gradient step on the first batches of an epoch, made beforehand."""
    with closing(system.train_loader.epoch(0)) as epoch:
        held = list(islice(epoch, batches))
    images = sum(system.train_loader.images(batch) for batch in range(len(held)))

    def encoded(batch: Batch) -> tuple[jax.Array, ...]:
        maps = system.encode(system.encoder.variables, batch.image)
        return tuple(jax.block_until_ready(x.astype(jnp.float32)) for x in maps)

    def encode(turn: int) -> None:
        for batch in held:
            encoded(batch)

    features = [(encoded(batch), batch._replace(image=None)) for batch in held]
    return [
        Job(ENCODER, None, images, encode),
        Job(STEP, None, images, lambda turn: training.train(features)),
    ]


def measure(
    config: config_dict.ConfigDict, workers: Sequence[int], batches: int, turns: int
) -> list[dict]:
    """Returns a row ``{"part", "workers", "images_per_second"}`` for everything measured.

    All take turns, so that what else the machine does meets all of them. The first turn, which
    decodes and compiles, is left out.
    """
    system = build(config)
    training = Training(system)
    jobs = computing_jobs(system, training, batches)
    jobs += [job for number in workers for job in feeding_jobs(system, number, training)]
    jobs.sort(key=lambda job: PARTS.index(job.part))
    times: list[list[float]] = [[] for _ in jobs]
    for turn in range(1 + turns):
        for job, own in zip(jobs, times, strict=True):
            started = time.perf_counter()
            job.call(turn)
            own.append(time.perf_counter() - started)
    rates = [job.images / statistics.median(own[1:]) for job, own in zip(jobs, times, strict=True)]
    return [
        {"part": job.part, "workers": job.workers, "images_per_second": rate}
        for job, rate in zip(jobs, rates, strict=True)
    ]


def verdict(rows: list[dict]) -> dict[str, Any]:
    """Names the slowest part, and what the whole takes relative to encoder and step alone.

    Of the loaders the one counts with which the whole was fastest.
    """
    loops = [row for row in rows if row["part"] == LOOP]
    best = max(loops, key=lambda row: row["images_per_second"])
    seconds = {
        row["part"]: 1 / row["images_per_second"]
        for row in rows
        if row["part"] != LOOP and row["workers"] in (None, best["workers"])
    }
    compute = seconds[ENCODER] + seconds[STEP]
    return {
        "bottleneck": max(seconds, key=lambda part: seconds[part]),
        "workers": best["workers"],
        "shares_of_compute": {part: value / compute for part, value in seconds.items()},
        "loop_over_compute": 1 / best["images_per_second"] / compute,
    }


def text(rows: list[dict], found: dict[str, Any]) -> str:
    """A table in Markdown and the verdict in two sentences."""
    lines = ["| part | workers | images/s |", "|---|---:|---:|"]
    for row in rows:
        number = "" if row["workers"] is None else row["workers"]
        lines.append(f"| {row['part']} | {number} | {row['images_per_second']:.1f} |")
    shares = ", ".join(f"{part} {share:.0%}" for part, share in found["shares_of_compute"].items())
    lines += [
        "",
        f"Bottleneck: {found['bottleneck']}. Relative to encoder and gradient step together: "
        f"{shares}; all together with {found['workers']} workers {found['loop_over_compute']:.0%}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table and the verdict, and writes both."""
    parser = _common.parser(__doc__, "configs/ssnf_textures.py")
    parser.add_argument(
        "--batches", type=int, default=6, help="batches for encoder and gradient step alone"
    )
    options = parser.parse_args()
    config, workers = _common.asked(options)
    rows = measure(config, workers, options.batches, options.turns)
    found = verdict(rows)
    print(text(rows, found))
    if options.output:
        _common.write(options.output, config=options.config, rows=rows, **found)


if __name__ == "__main__":
    main()
