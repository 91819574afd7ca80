"""The process that knows how fast the jobs of the performance benchmark could be."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.performance import floor
from benchmarks.performance.workers import recipe


def _work(
    paths: list[str], settings: list[str], precision: str, cores: int, pipe: Connection
) -> None:
    """Sends the work of every recipe, then, when asked, the rates of the device."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    try:
        from flowad_jax import jax_config

        pipe.send({path: floor.least(recipe(path, settings)) for path in paths})
        pipe.recv()
        jax_config.set_matmul_precision(precision)
        pipe.send(floor.ceilings())
    except Exception as error:
        pipe.send({"error": f"{type(error).__name__}: {error}"[:300]})


class Floors:
    """Counts while others compile, and measures the device when nothing else does."""

    def __init__(self, paths: list[str], options: argparse.Namespace):
        """Starts the process."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (paths, options.set, options.precision, options.cores, theirs)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._limit = options.limit
        self._work: dict[str, Any] = {}
        self._rates: dict[str, Any] = {}

    def measure(self) -> dict[str, Any]:
        """Waits for the count, then has the rates of the device measured; an ``error`` is said."""
        self._work = self._received()
        self._rates = self._work
        if "error" not in self._work:
            self._pipe.send("rates")
            self._rates = self._received()
        self._process.join(20)
        if "error" in self._rates:
            print(f"floors: {self._rates['error']}", flush=True)
        return self._rates

    def _received(self) -> dict[str, Any]:
        with contextlib.suppress(EOFError, OSError):
            if self._pipe.poll(self._limit):
                answer: dict[str, Any] = self._pipe.recv()
                return answer
            self._process.kill()
        return {"error": "no answer"}

    def add_to(self, entry: dict[str, Any]) -> None:
        """Puts ``floor`` into what was measured of a recipe."""
        if "error" not in self._rates:
            jobs = self._work[entry["recipe"]]
            found = {job: floor.seconds(need, self._rates) for job, need in jobs.items()}
            entry["floor"] = found
