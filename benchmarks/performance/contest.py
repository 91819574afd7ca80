"""The sides of one recipe in the performance benchmark, and how they take turns."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ml_collections import config_dict

from benchmarks import _common
from benchmarks.performance.jobs import EXPORTED, Given
from benchmarks.performance.workers import Worker, build_side

Entry = dict[str, Any]
Build = Callable[[], Any]


class Contest:
    """The sides of one recipe.

    Attributes:
      entry: what is known of the recipe, with ``images`` by job, and what was measured: ``sides``.
    """

    def __init__(self, entry: Entry, builders: Mapping[str, Build], options: argparse.Namespace):
        """Starts the processes; they build while others are started.

        Args:
          entry: the recipe.
          builders: by side what builds it, see `Worker`.
          options: of the command line.
        """
        self._options = options
        self._workers = {
            side: Worker(build, options.cores, options.limit) for side, build in builders.items()
        }
        self.entry: Entry = entry | {"sides": {side: {} for side in builders}}

    @classmethod
    def of_recipe(
        cls, path: str, config: config_dict.ConfigDict, given: Given, options: argparse.Namespace
    ) -> Contest:
        """Starts the sides of a recipe, whose images are noise."""
        entry = {
            "recipe": path,
            "method": config.method.name,
            "encoder": config.encoder.name,
            "image_size": config.data.image_size,
            "images": {
                "train": config.train.batch_size,
                "infer": config.eval.batch_size,
                "infer one": 1,
            },
        }
        sides = options.sides.split(",")
        arguments = path, options.set, given
        return cls(entry, {side: partial(build_side, side, *arguments) for side in sides}, options)

    def ready(self) -> dict[str, Any]:
        """Waits until all are built; returns the device of each."""
        answers = {side: worker.ready() for side, worker in self._workers.items()}
        return {side: answer.get("device") for side, answer in answers.items()}

    def warm(self) -> None:
        """Compiles, side after side."""
        for side in self._workers:
            self.ask_to_warm(side)
            self.warmed(side)

    def ask_to_warm(self, side: str = "") -> None:
        """Has a side compile all jobs, or all sides at once; `warmed` hears of it."""
        for name in [side] if side else self._workers:
            for job in self._jobs(name):
                self._workers[name].send("warm", job)

    def warmed(self, side: str = "") -> None:
        """Waits for what `ask_to_warm` began."""
        for name in [side] if side else self._workers:
            found = {job: self._workers[name].receive() for job in self._jobs(name)}
            self.entry["sides"][name] = found
            first = sum(answer.get("first_s", 0.0) for answer in found.values())
            self._say(f"{name}: first calls took {first:.1f} s")

    def _jobs(self, side: str) -> tuple[str, ...]:
        """On a CPU a C++ compiler is at work, for minutes; what was exported cannot train."""
        asked = self._options.jobs.split(",")
        if "compile" in side:
            asked = [job for job in asked if job in self._options.compile_jobs.split(",")]
        can = [job for job in self.entry["images"] if job != "train" or side not in EXPORTED]
        return tuple(job for job in can if job in asked)

    def measure(self) -> None:
        """Lets the sides take turns at every job."""
        budget = self._options.seconds / self._options.turns
        for job in self.entry["images"]:
            for _ in range(self._options.turns):
                for side, worker in self._workers.items():
                    found = self.entry["sides"][side].get(job, {"error": "not asked"})
                    if "error" not in found:
                        merge(found, worker.ask("time", job, budget))
            self._sum_up(job)

    def _sum_up(self, job: str) -> None:
        for side, jobs in self.entry["sides"].items():
            if job not in jobs:
                continue
            found = jobs[job]
            if "error" in found:
                self._say(f"{side}: {job}: {found['error']}")
                continue
            found["median_s"] = statistics.median(found["times_s"])
            rate = self.entry["images"][job] / found["median_s"]
            self._say(f"{side}: {job}: {rate:.1f} images/s")

    def _say(self, text: str) -> None:
        print(f"{self.entry['method']}: {text}", flush=True)

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers.values():
            worker.close()


def add_flags(parser: argparse.ArgumentParser, sides: str) -> None:
    """Adds what a `Contest` is told; ``sides`` are the default."""
    add = parser.add_argument
    add("--sides", default=sides, help="comma list, see above")
    add("--precision", default="float32", choices=("float32", "tf32"), help="of matrix products")
    add("--seconds", type=float, default=6.0, help="timed, for each job of each side")
    add("--turns", type=_common.positive, default=3, help="in which the sides share them out")
    add("--limit", type=float, default=600.0, help="seconds within which a process answers")
    cores = len(os.sched_getaffinity(0))
    add("--cores", type=_common.positive, default=cores, help="for every process")
    add("--freia", default="0.2", choices=("0.2", "2023-06"), help="form of FrEIA's blocks")
    add("--compile_mode", default="default", help="mode of torch.compile")
    add("--output", help="JSON file")


def merge(found: Entry, answer: Entry) -> None:
    """Adds a turn to what is known of a job."""
    if "error" in answer:
        found.update(answer)
        return
    found.setdefault("times_s", []).extend(answer["times_s"])
    found["calls_per_time"] = answer["calls_per_time"]
    found["peak_bytes"] = max(answer.get("peak_bytes", 0), found.get("peak_bytes", 0))


def told(config: config_dict.ConfigDict, options: argparse.Namespace) -> Given:
    """What PyTorch has to know of our encoder and method; computes nothing."""
    # Here, so that the processes that import this file hold one framework.
    from flowad_jax import lookup
    from flowad_jax.encoders.architecture import find
    from flowad_jax.encoders.taps import choose_taps

    spec, section = find(config.encoder.name).spec, config.encoder
    taps = choose_taps(spec, section.taps, tuple(section.strides))
    arguments = config.method.to_dict()
    method = lookup.find("flowad_jax.methods", arguments.pop("name"))(**arguments)
    return Given(
        taps=taps,
        channels=tuple(spec.channels[tap] for tap in taps),
        batch_kind=method.batch_kind,
        precision=options.precision,
        freia=options.freia,
        compile_mode=options.compile_mode,
    )
