"""MSFlow beside PyTorch + FrEIA: seconds of training and scoring, memory, and the feature cache.

    python -m benchmarks.performance.msflow --encoder=efficientnet_lite.efficientnet_lite0 \
        --image_size=192 --batch_size=8 --steps=10 --output=msflow.json

Speed needs no data: maps and images are noise, encoder weights random, the flows are those of the
recipe. Each side has a process of its own, bound to the same cores; they take turns, so that what
else the machine does meets both, and the memory of a job is the largest resident set of its
process meanwhile (compilation included). Needs Linux, torch and FrEIA 0.2.

With `--data_root` the recipe's images are trained for some epochs too, with the encoder in every
step and from the feature cache.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from ml_collections import config_dict

from benchmarks import _common
from benchmarks.performance import msflow_epochs, msflow_sides
from benchmarks.performance.jobs import host_peak_bytes
from benchmarks.performance.msflow_sides import JOBS, Features

SIDES = ("jax", "torch", "torch channels_last")


def recipe(options: argparse.Namespace) -> config_dict.ConfigDict:
    """The recipe with what the command line says instead."""
    config = _common.recipe(options.config)
    config.data.root = options.data_root
    config.data.holdout = 0.0
    if options.encoder:
        config.encoder.name = options.encoder
    if options.image_size:
        config.data.image_size = options.image_size
        config.data.category_sizes = config_dict.ConfigDict()
    config.train.batch_size = options.batch_size or config.train.batch_size
    config.encoder.weights = "random"  # the time that it takes does not depend on them
    return config


def worker(
    side: str, options: argparse.Namespace, features: Features | None, pipe: Connection
) -> None:
    """Answers a job and a number with the seconds of as many calls, and the memory; None ends."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    config = recipe(options)
    built: Any
    if features is None:
        built = msflow_sides.JaxSide(config)
    else:
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        built = msflow_sides.TorchSide(config, features, side.endswith("channels_last"))
    pipe.send(built.features)
    prepared: dict[str, msflow_sides.Job] = {}
    while request := pipe.recv():
        job, calls = request
        if job not in prepared:
            prepared.clear()
            msflow_sides.forget_peak()
            try:
                prepared[job] = built.prepare(job)
            except (ImportError, LookupError) as error:
                print(f"{side}: {job}: {error}", flush=True)
                pipe.send(None)
                continue
        # The first call compiles, or finds the caches full of the neighbour's data.
        times = [msflow_sides.seconds(prepared[job]) for _ in range(calls + 1)][1:]
        pipe.send((times, host_peak_bytes()))


class Sides:
    """The processes of all sides."""

    def __init__(self, options: argparse.Namespace):
        """Starts ours first, because it knows the shapes of the features."""
        self._options = options
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[str, tuple[Any, Connection]] = {}
        self._start("jax", None)
        self.features: Features = self._pipe("jax").recv()
        for side in SIDES[1:]:
            self._start(side, self.features)
            self._pipe(side).recv()

    def _start(self, side: str, features: Features | None) -> None:
        ours, theirs = self._context.Pipe()
        arguments = (side, self._options, features, theirs)
        process = self._context.Process(target=worker, args=arguments, daemon=True)
        process.start()
        theirs.close()  # so that the end of the process is an EOFError here and not a wait
        self._workers[side] = process, ours

    def _pipe(self, side: str) -> Connection:
        return self._workers[side][1]

    def measure(self, job: str) -> dict[str, dict[str, Any]]:
        """Lets the sides take turns at a job; those that cannot do it are left out."""
        turns, found = self._options.turns, {}
        times: dict[str, list[float]] = {side: [] for side in self._workers}
        for _ in range(turns):
            for side in SIDES:
                self._pipe(side).send((job, max(1, self._options.steps // turns)))
                answer = self._pipe(side).recv()
                if answer is None:
                    continue
                times[side] += answer[0]
                found[side] = {"peak_bytes": answer[1]}
        for side, values in found.items():
            values |= {"median_s": statistics.median(times[side]), "times_s": times[side]}
        return found

    def close(self) -> None:
        """Ends the processes."""
        for process, pipe in self._workers.values():
            pipe.send(None)
            process.join()


def table(jobs: dict[str, dict[str, dict[str, Any]]], batch: int) -> str:
    """Medians, ratios and memory as Markdown; scoring is per image, training per step."""
    lines = [
        "| job | flowad_jax | PyTorch | ratio | PyTorch channels_last | memory | of PyTorch |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for job, sides in jobs.items():
        rows = batch if job.startswith("score") else 1
        unit = "per image" if job.startswith("score") else f"step of {batch}"
        cells = [
            f"{1000 * sides[side]['median_s'] / rows:.1f} ms" if side in sides else "-"
            for side in SIDES
        ]
        memory = [
            f"{sides[side]['peak_bytes'] / 2**20:.0f} MiB" if side in sides else "-"
            for side in SIDES[:2]
        ]
        cells.insert(2, f"{ratio(sides):.2f}" if "torch" in sides else "-")
        lines.append(f"| {job}, {unit} | {' | '.join(cells + memory)} |")
    return "\n".join(lines)


def ratio(sides: dict[str, dict[str, Any]]) -> float:
    """Our seconds over the peer's; below 1 we are faster."""
    return sides["jax"]["median_s"] / sides["torch"]["median_s"]


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    options = parse()
    sides = Sides(options)
    shapes = ", ".join(" x ".join(map(str, shape)) for shape in sides.features.shapes)
    config = recipe(options)
    print(f"{config.encoder.name}, {config.data.image_size} px, maps {shapes}", flush=True)
    jobs = {job: sides.measure(job) for job in JOBS}
    sides.close()
    print(table(jobs, config.train.batch_size), flush=True)
    measured: dict[str, Any] = {
        "options": vars(options),
        "maps": sides.features.shapes,
        "jobs": jobs,
    }
    if options.data_root:
        measured["epochs"] = epochs(options)
        print(msflow_epochs.text(measured["epochs"], jobs["train maps"]["jax"]["median_s"]))
    if options.output:
        _common.write(options.output, **measured)


def epochs(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of epochs, from a process of their own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_epochs, options).result()


def _epochs(options: argparse.Namespace) -> dict[str, Any]:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    return msflow_epochs.run(recipe(options), options.epochs)


def parse() -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/msflow_magnetic_tile.py")
    parser.add_argument("--data_root", default="", help="config.data.root, to train epochs too")
    parser.add_argument("--encoder", help="instead of the recipe's")
    parser.add_argument("--image_size", type=int, help="instead of the recipe's")
    parser.add_argument("--batch_size", type=int, help="instead of the recipe's")
    parser.add_argument("--steps", type=int, default=10, help="timed calls of every job")
    parser.add_argument("--turns", type=int, default=2, help="in which the sides share them out")
    parser.add_argument("--epochs", type=int, default=3, help="each way, with --data_root")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", help="JSON file with everything measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
