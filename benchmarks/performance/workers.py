"""The processes of the performance benchmark: one for every side of every recipe.

A process that fails, or does not answer in time, is a result and no reason to stop.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from ml_collections import config_dict

from benchmarks import _common
from benchmarks.performance.jobs import EXPORTED, Given
from flowad_jax.arguments import settings as parsed
from flowad_jax.errors import UserError

Answer = dict[str, Any]
GROUPS = 5  # in which the calls of a turn are timed, if they are short


def recipe(path: str, settings: list[str]) -> config_dict.ConfigDict:
    """A recipe with random encoder weights and with what ``--set`` says instead.

    Raises:
      UserError: a setting is no key of the recipe, or of another type.
    """
    config = _common.recipe(path)
    config.data.category_sizes = config_dict.ConfigDict()
    for key, value in ({"encoder.weights": "random"} | parsed(settings)).items():
        try:
            config.update_from_flattened_dict({key: value})
        except (KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split()).partition(". Other fields")[0].strip("'")
            raise UserError(f"--set={key}={value}: does not fit {path}: {reason}") from error
    return config


def _work(build: Callable[[], Any], cores: int, pipe: Connection) -> None:
    """Builds a side, then answers requests ``(action, job, seconds)``; None ends."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    built: Any = None
    jobs: dict[str, Any] = {}
    try:
        built = build()
        pipe.send({"device": built.device})
    except Exception as error:
        pipe.send(_failed(error))
    while request := pipe.recv():
        action, job, budget = request
        try:
            if action == "warm":
                jobs[job] = built.prepare(job)
                pipe.send(_warmed(built, job, jobs[job]))
            else:
                pipe.send(_timed(built, job, jobs[job], budget))
        except Exception as error:
            pipe.send(_failed(error))


def build_side(side: str, path: str, settings: list[str], given: Given) -> Any:
    """Builds a side of a recipe; imports its framework and no other."""
    config = recipe(path, settings)
    kind, *words = side.split()
    if side in EXPORTED:
        from benchmarks.performance.onnx_side import OnnxSide

        return OnnxSide(config, given, side)
    if kind == "jax":
        from benchmarks.performance.jax_side import JaxSide

        return JaxSide(config, given)
    if kind != "torch":
        raise LookupError(f"no side '{side}'")
    from benchmarks.performance.torch_side import TorchSide

    return TorchSide(config, given, words)


def _failed(error: Exception) -> Answer:
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
    return {"error": reason, "traceback": traceback.format_exc()[-3000:]}


def _warmed(built: Any, name: str, job: Any) -> Answer:
    """The first call compiles; in PyTorch the second one may go on with it."""
    built.start(name)
    first, second, third = (_seconds(built, job, 1) for _ in range(3))
    found = {"first_s": first, "compile_s": max(0.0, first + second - 2 * third)}
    return found if built.forgets else found | {"peak_bytes": built.peak_bytes()}


def _timed(built: Any, name: str, job: Any, budget: float) -> Answer:
    built.start(name)
    gc.collect()
    # The first call finds the caches full of the neighbour's data.
    once = _seconds(built, job, 1)
    group = max(1, int(budget / GROUPS / once))
    times, end = [], time.perf_counter() + budget
    while not times or time.perf_counter() < end:
        times.append(_seconds(built, job, group))
    found = {"times_s": times, "calls_per_time": group}
    return found | {"peak_bytes": built.peak_bytes()} if built.forgets else found


def _seconds(built: Any, job: Any, calls: int) -> float:
    """Of one of so many calls, between which nothing waits for the device."""
    start = time.perf_counter()
    for _ in range(calls):
        result = job()
    built.wait(result)
    return (time.perf_counter() - start) / calls


class Worker:
    """The process of a side, seen from outside.

    Attributes:
      built: its first answer, ``device`` or ``error``; after `ready`.
    """

    def __init__(self, build: Callable[[], Any], cores: int, limit: float):
        """Starts it.

        Args:
          build: returns the side, such as a `JaxSide`; is called in the process.
          cores: of the machine that the process may use.
          limit: seconds within which it has to answer.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(build, cores, theirs), daemon=False)
        self._process.start()
        theirs.close()  # so that the end of the process is an EOFError here and not a wait
        self._limit, self._gone, self.built = limit, "", {}

    def ready(self) -> Answer:
        """Waits until the side is built."""
        self.built = self.receive()
        self._gone = self.built.get("error", "")
        return self.built

    def send(self, action: str, job: str, seconds: float = 0.0) -> None:
        """Asks; the answer is received later."""
        if not self._gone:
            try:
                self._pipe.send((action, job, seconds))
            except OSError as error:
                self._gone = f"the process ended: {error}"

    def receive(self) -> Answer:
        """Waits for an answer, which may be an ``error``."""
        if self._gone:
            return {"error": self._gone}
        try:
            if self._pipe.poll(self._limit):
                answer: Answer = self._pipe.recv()
                return answer
            self._gone = f"no answer within {self._limit:.0f} s"
            self._process.kill()
        except (EOFError, OSError):
            self._process.join(10)
            self._gone = f"the process ended with code {self._process.exitcode}"
        return {"error": self._gone}

    def ask(self, action: str, job: str, seconds: float = 0.0) -> Answer:
        """Sends and receives."""
        self.send(action, job, seconds)
        return self.receive()

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()
