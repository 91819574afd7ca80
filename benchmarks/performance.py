"""All four methods beside PyTorch running the same recipes: training, inference, memory, floors.

    python -m benchmarks.performance --output=docs/performance/cpu.json
    python -m benchmarks.performance --precision=tf32 --warm_together --title="One H100, TF32" \
        --output=docs/performance/h100_tf32.json
    python -m benchmarks.performance_table --write

Jobs and sides are described in benchmarks/performance_sides.py, floors in benchmarks/floor.py. Each
side of each recipe has a process of its own, bound to the same cores; the sides of a recipe take
turns, so that what else the machine does meets all of them. The JSON file holds all times, the
memory, the seconds of the first call and the versions; where a side fails it holds the reason.
Needs Linux; PyTorch, FrEIA 0.2 and the libraries of the encoders for the sides of PyTorch.

Sides: `jax`; `torch`; `torch compile`; either of PyTorch's also with the word `channels_last`.
On a GPU add --compile_jobs="train,infer,infer one": compilation takes seconds there, not minutes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from benchmarks import _common, performance_floor
from benchmarks.performance_sides import JOBS, Given
from benchmarks.performance_workers import Worker, recipe
from flowad_jax.arguments import Parser
from flowad_jax.errors import UserError

RECIPES = ",".join(
    f"configs/{method}_magnetic_tile.py" for method in ("cflow", "msflow", "sanflow", "ssnf")
)
SIDES = "jax,torch,torch compile"
Entry = dict[str, Any]


class Contest:
    """The sides of one recipe."""

    def __init__(self, path: str, config: config_dict.ConfigDict, options: argparse.Namespace):
        """Starts the processes; they build while others are started."""
        self._options, given = options, told(config, options)
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
    found["peak_bytes"] = max(answer["peak_bytes"], found.get("peak_bytes", 0))


def told(config: config_dict.ConfigDict, options: argparse.Namespace) -> Given:
    """What PyTorch has to know of our encoder and method; computes nothing."""
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
        learns_from=method.learns_from,
        precision=options.precision,
        freia=options.freia,
        compile_mode=options.compile_mode,
    )


def run(options: argparse.Namespace) -> Entry:
    """Measures everything.

    Raises:
      UserError: a recipe or a setting does not fit.
    """
    paths = options.recipes.split(",")
    configs = {path: recipe(path, options.set) for path in paths}
    started = time.perf_counter()
    floors = performance_floor.Floors(paths, options) if options.warm_together else None
    devices: dict[str, Any] = {}
    entries = []
    for group in [paths] if options.warm_together else [[path] for path in paths]:
        contests = [Contest(path, configs[path], options) for path in group]
        for contest in contests:
            devices |= {side: x for side, x in contest.ready().items() if x}
        if options.warm_together:
            for contest in contests:
                contest.ask_to_warm()
        for contest in contests:
            contest.warmed() if options.warm_together else contest.warm()
        if floors:
            floors.counted()  # so that it counts no more while others are timed
        for contest in contests:
            contest.measure()
            contest.close()
            entries.append(contest.entry)
    floors = floors or performance_floor.Floors(paths, options)
    rates = floors.add_to(entries)
    measured = {"device": described(devices), "precision": options.precision, "rates": rates}
    return {**measured, "recipes": entries, "seconds": time.perf_counter() - started}


def described(devices: dict[str, Any]) -> str:
    """The device in words; the kind of processor where there is no accelerator."""
    names = sorted({name for name in devices.values() if name != "cpu"})
    if names:
        return ", ".join(names)
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return f"{models[0] if models else 'CPU'}, {len(os.sched_getaffinity(0))} cores"


def versions() -> dict[str, str]:
    """Of what the sides of PyTorch are made of."""
    names = ("torchvision", "FrEIA", "timm", "efficientnet-lite-pytorch", "triton")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    from benchmarks import performance_table

    options, parser = parse()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the sides share the memory
    command = shlex.join(["python", "-m", "benchmarks.performance", *sys.argv[1:]])
    try:
        measured = run(options)
        found = {"title": options.title, "command": command, "peers": versions(), **measured}
        if options.output:
            Path(options.output).parent.mkdir(parents=True, exist_ok=True)
            _common.write(options.output, options=vars(options), **found)
        print(performance_table.table(found))
    except UserError as error:
        parser.fail(error)


def parse() -> tuple[argparse.Namespace, Parser]:
    """Command-line options."""
    parser = Parser("python -m benchmarks.performance", __doc__)
    add = parser.add_argument
    add("--recipes", default=RECIPES, help="comma list of files")
    add("--sides", default=SIDES, help="comma list, see above")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="of all recipes; repeat it")
    add("--precision", default="float32", choices=("float32", "tf32"), help="of matrix products")
    add("--seconds", type=float, default=6.0, help="timed, for each job of each side")
    add("--turns", type=int, default=3, help="in which the sides share them out")
    add("--warm_together", action="store_true", help="compile everything at the same time")
    add("--limit", type=float, default=300.0, help="seconds within which a process answers")
    add("--cores", type=int, default=len(os.sched_getaffinity(0)), help="for every process")
    add("--freia", default="0.2", choices=("0.2", "2023-06"), help="form of FrEIA's blocks")
    add("--compile_jobs", default="train,infer", help="comma list, for `torch compile`")
    add("--compile_mode", default="default", help="mode of torch.compile")
    add("--title", default="", help="of the table")
    add("--output", help="JSON file")
    return parser.parse_args(), parser


if __name__ == "__main__":
    main()
