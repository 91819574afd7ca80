"""The sides of one recipe in the performance benchmark, and how they take turns."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from ml_collections import config_dict

from benchmarks.performance.jobs import JOBS, Given
from benchmarks.performance.workers import Worker

Entry = dict[str, Any]


class Contest:
    """The sides of one recipe."""

    def __init__(
        self,
        path: str,
        config: config_dict.ConfigDict,
        given: Given,
        options: argparse.Namespace,
    ):
        """Starts the processes; they build while others are started."""
        self._options = options
        self._images = {
            "train": config.train.batch_size,
            "infer": config.eval.batch_size,
            "infer one": 1,
        }
        arguments = path, options.set, given, options.cores, options.limit
        self._workers = {side: Worker(side, *arguments) for side in options.sides.split(",")}
        self.entry: Entry = {
            "recipe": path,
            "method": config.method.name,
            "encoder": config.encoder.name,
            "image_size": config.data.image_size,
            "images": self._images,
            "sides": {side: {} for side in self._workers},
        }

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
        """On a CPU a C++ compiler is at work, for minutes."""
        asked = self._options.compile_jobs.split(",")
        return tuple(job for job in JOBS if "compile" not in side or job in asked)

    def measure(self) -> None:
        """Lets the sides take turns at every job."""
        budget = self._options.seconds / self._options.turns
        for job in JOBS:
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
            rate = self._images[job] / found["median_s"]
            self._say(f"{side}: {job}: {rate:.1f} images/s")

    def _say(self, text: str) -> None:
        print(f"{self.entry['method']}: {text}", flush=True)

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers.values():
            worker.close()


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
