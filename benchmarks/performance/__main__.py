"""All four methods beside PyTorch running the same recipes: training, inference, memory, floors.

    python -m benchmarks.performance --output=docs/performance/cpu.json
    python -m benchmarks.performance --precision=tf32 --warm_together --title="One H100, TF32" \
        --output=docs/performance/h100_tf32.json
    python -m benchmarks.performance.table --write

Jobs and sides are described in jobs.py beside this file, floors in floor.py. Each side of each
recipe has a process of its own, bound to the same cores; the sides of a recipe take turns, so that
what else the machine does meets all of them. The JSON file holds all times, the memory, the
seconds of the first call and the versions; where a side fails it holds the reason. Needs Linux;
PyTorch, FrEIA 0.2 and the libraries of the encoders for the sides of PyTorch.

Sides: `jax`; `torch`; `torch compile`; either of PyTorch's also with the word `channels_last`;
`onnxruntime` and `openvino`, which judge what `flowad_jax.onnx` made of ours, on the CPU.
On a GPU add --compile_jobs="train,infer,infer one": compilation takes seconds there, not minutes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks.performance import floors as performance_floors
from benchmarks.performance.contest import Contest, Entry, add_flags, told
from benchmarks.performance.jobs import JOBS
from benchmarks.performance.workers import recipe
from flowad_jax.arguments import Parser
from flowad_jax.errors import UserError

RECIPES = ",".join(
    f"configs/{method}_magnetic_tile.py" for method in ("cflow", "msflow", "sanflow", "ssnf")
)
SIDES = "jax,torch,torch compile"


def run(options: argparse.Namespace, command: str) -> Entry:
    """Measures everything, and writes it whenever a recipe is done.

    Raises:
      UserError: a recipe or a setting does not fit, or the file cannot be written.
    """
    paths = options.recipes.split(",")
    configs = {path: recipe(path, options.set) for path in paths}
    given = {path: told(config, options) for path, config in configs.items()}
    found: Entry = {"title": options.title, "command": command, "peers": versions()}
    found |= {"device": "", "precision": options.precision, "recipes": []}
    devices: dict[str, Any] = {}
    floors = performance_floors.Floors(paths, options)
    if not options.warm_together:
        found["rates"] = floors.measure()
    for group in [paths] if options.warm_together else [[path] for path in paths]:
        contests = [Contest.of_recipe(path, configs[path], given[path], options) for path in group]
        for contest in contests:
            devices |= contest.ready()
        if options.warm_together:
            _warm_together(contests)
            found["rates"] = floors.measure()
        for contest in contests:
            if not options.warm_together:
                contest.warm()
            contest.measure()
            contest.close()
            floors.add_to(contest.entry)
            found["recipes"].append(contest.entry)
            found["device"] = described(devices)
            keep(options, found)
    return found


def _warm_together(contests: list[Contest]) -> None:
    for contest in contests:
        contest.ask_to_warm()
    for contest in contests:
        contest.warmed()


def keep(options: argparse.Namespace, found: Entry) -> None:
    """Writes what there is, if it is wanted."""
    if options.output:
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
        _common.write(options.output, options=vars(options), **found)


def described(devices: dict[str, Any]) -> str:
    """The device in words; the kind of processor where there is no accelerator."""
    names = sorted({name for name in devices.values() if name})
    if names != ["cpu"]:
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
    from benchmarks.performance import table

    options, parser = parse()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the sides share the memory
    command = shlex.join(["python", "-m", "benchmarks.performance", *sys.argv[1:]])
    try:
        print(table.table(run(options, command)))
    except UserError as error:
        parser.fail(error)


def _jobs(words: str) -> str:
    if not set(words.split(",")) <= set(JOBS):
        raise argparse.ArgumentTypeError(f"'{words}': choose from {', '.join(JOBS)}")
    return words


def parse() -> tuple[argparse.Namespace, Parser]:
    """Command-line options."""
    parser = Parser("python -m benchmarks.performance", __doc__)
    add_flags(parser, SIDES)
    add = parser.add_argument
    add("--recipes", default=RECIPES, help="comma list of files")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="of all recipes; repeat it")
    add("--warm_together", action="store_true", help="compile everything at the same time")
    add("--jobs", type=_jobs, default=",".join(JOBS), help="comma list of what to measure")
    add("--compile_jobs", type=_jobs, default="train,infer", help="comma list, for `torch compile`")
    add("--title", default="", help="of the table")
    return parser.parse_args(), parser


if __name__ == "__main__":
    main()
