"""Which part of training is the bottleneck: the loader with synthesis, the encoder or the step.

    python -m benchmarks.training_feed --config=configs/ssnf_textures.py --output=feed.json

Each part runs alone and then all together, as in training; images per second count normal images.
Threads of the loader share the cores with the rest: what they cost is what the whole takes longer
than encoder and gradient step alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import jax
from ml_collections import config_dict

from benchmarks import _common
from flowad_jax.training.experiment import Experiment, build
from flowad_jax.training.optimizer import fresh_state
from flowad_jax.training.step import make_train_step
from flowad_jax.types import Batch

PARTS = LOADER, ENCODER, STEP, LOOP = "loader", "encoder", "gradient step", "all together"
Jobs = dict[tuple[str, int | None], Callable[[int], float]]  # by part and threads of the loader


class Training:
    """The parts of an experiment, each of which can run alone."""

    def __init__(self, experiment: Experiment, batches: int):
        """Draws fresh parameters and makes the first batches of an epoch."""
        clip_norm = experiment.config.train.clip_norm
        self._experiment = experiment
        self._step = make_train_step(
            experiment.method, experiment.optimizer, experiment.schedule, clip_norm
        )
        self._state = fresh_state(experiment)
        with closing(experiment.train_loader.epoch(0)) as epoch:
            self._held = list(islice(epoch, batches))
        self._encoded = self.encode()

    def encode(self) -> list[Batch]:
        """Computes the features of the first batches."""
        encode, variables = self._experiment.encode, self._experiment.encoder.variables
        seen = (jax.block_until_ready(encode(variables, batch.image)) for batch in self._held)
        return [
            batch._replace(maps=own.maps, image=own.image)
            for batch, own in zip(self._held, seen, strict=True)
        ]

    def train(self, batches: Iterable[Batch]) -> None:
        """Trains on batches with maps; waits for the last step."""
        for batch in batches:
            self._state, _ = self._step(self._state, batch)
        jax.block_until_ready(self._state)

    def jobs(self, workers: Sequence[int]) -> Jobs:
        """What to time; each returns seconds per image."""
        held = sum(self._experiment.train_loader.images(i) for i in range(len(self._held)))
        jobs: Jobs = {
            (ENCODER, None): partial(_time, lambda turn: self.encode(), held),
            (STEP, None): partial(_time, lambda turn: self.train(self._encoded), held),
        }
        for number in workers:
            self._experiment.config.data.workers = number
            loader = build(self._experiment.config).train_loader
            fed = dataclasses.replace(self._experiment, train_loader=loader)
            images = fed.images_per_epoch
            jobs[LOADER, number] = partial(_time, partial(self._load, fed), images)
            jobs[LOOP, number] = partial(_time, partial(self._loop, fed), images)
        return dict(sorted(jobs.items(), key=lambda job: PARTS.index(job[0][0])))

    def _load(self, fed: Experiment, turn: int) -> None:
        for _ in fed.train_loader.epoch(turn):
            pass

    def _loop(self, fed: Experiment, turn: int) -> None:
        with closing(fed.features.train.epoch(turn)) as batches:
            self.train(batches)


def _time(work: Callable[[int], object], images: int, turn: int) -> float:
    started = time.perf_counter()
    work(turn)
    return (time.perf_counter() - started) / images


def verdict(seconds: dict[tuple[str, int | None], float]) -> dict[str, Any]:
    """Names the slowest part, and what the whole takes relative to encoder and step alone.

    Of the loaders the one counts with which the whole was fastest.
    """
    best = min((key for key in seconds if key[0] == LOOP), key=lambda key: seconds[key])[1]
    parts = {
        part: own
        for (part, workers), own in seconds.items()
        if part != LOOP and workers in (None, best)
    }
    compute = parts[ENCODER] + parts[STEP]
    return {
        "bottleneck": max(parts, key=lambda part: parts[part]),
        "workers": best,
        "shares_of_compute": {part: value / compute for part, value in parts.items()},
        "loop_over_compute": seconds[LOOP, best] / compute,
    }


def measure(
    config: config_dict.ConfigDict, workers: Sequence[int], batches: int, turns: int
) -> tuple[list[dict], dict[str, Any]]:
    """Returns rows ``{"part", "workers", "images_per_second"}`` and the verdict."""
    seconds = _common.medians(Training(build(config), batches).jobs(workers), turns)
    rows = [
        {"part": part, "workers": number, "images_per_second": 1 / own}
        for (part, number), own in seconds.items()
    ]
    return rows, verdict(seconds)


def main() -> None:
    """Measures, prints the table and the verdict, and writes both."""
    parser = _common.parser(__doc__, "configs/ssnf_textures.py")
    parser.add_argument(
        "--batches", type=int, default=6, help="batches for encoder and gradient step alone"
    )
    options = parser.parse_args()
    config, workers = _common.asked(options)
    rows, found = measure(config, workers, options.batches, options.turns)
    print("| part | workers | images/s |\n|---|---:|---:|")
    for row in rows:
        number = "" if row["workers"] is None else row["workers"]
        print(f"| {row['part']} | {number} | {row['images_per_second']:.1f} |")
    shares = ", ".join(f"{part} {share:.0%}" for part, share in found["shares_of_compute"].items())
    print(
        f"\nBottleneck: {found['bottleneck']}. Relative to encoder and gradient step together: "
        f"{shares}; all together with {found['workers']} workers {found['loop_over_compute']:.0%}."
    )
    if options.output:
        _common.write(options.output, config=options.config, rows=rows, **found)


if __name__ == "__main__":
    main()
