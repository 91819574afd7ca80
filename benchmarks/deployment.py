"""How fast detectors judge image files before and after `flowad export`, and how large they are.

    python -m benchmarks.deployment --workdir=runs/a,runs/b --output=deployment.json

from a file to a decision   seconds from the names of image files to predictions, for one image and
                            for a batch of `eval.batch_size`; the files are in the system's cache
first decision              seconds from the start of a process to its first prediction
sizes                       of the checkpoint and of the bundle

Every run is exported to a temporary folder first. Sides are `jax`, which is `flowad_jax.load`;
`onnxruntime` and `openvino`, which are the bundle's own `run.py`; and `torch` and `torch compile`:
the same network in PyTorch with random weights, between the code that decodes, resizes, scores and
decides in JAX's side, which goes on with the maps of the real detector. Each has a process of its
own on the same cores; they take turns, so that what else the machine does meets all of them.
Images are those of --input or the run's test images. Needs Linux.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _common
from benchmarks.performance.contest import Contest, Entry, add_flags, told
from benchmarks.performance.jobs import EXPORTED, Given, HostSide, Job
from benchmarks.performance.table import NAMES
from flowad_jax.arguments import Parser
from flowad_jax.data import transforms
from flowad_jax.data.inputs import split
from flowad_jax.detector.workdir import load_config
from flowad_jax.errors import UserError
from flowad_jax.jax_config import VARIABLE
from flowad_jax.report.results import markdown_table

SIDES = ",".join(("jax", *EXPORTED, "torch", "torch compile"))
ONE, MANY = "one", "batch"
STARTS = {
    "jax": "import flowad_jax; print(flowad_jax.load({run!r}).predict({file!r}), flush=True)",
    "bundle": "import sys; sys.path.insert(0, {bundle!r}); from run import Detector; "
    "print(Detector({bundle!r}, {backend!r}).predict({file!r}), flush=True)",
}
FILES = ("model.onnx", "model.stablehlo")
Predict = Callable[[Sequence[str]], Any]


class Side(HostSide):
    """One way from files to predictions."""

    def __init__(self, name: str, workdir: str, bundle: str, given: Given, files: Sequence[str]):
        """Loads the detector; ``name`` is one of the sides."""
        self._files, self._batch = files, load_config(Path(workdir)).eval.batch_size
        self._predict = _predictor(name, workdir, bundle, given)

    def prepare(self, job: str) -> Job:
        """Judges all files once, then goes on from file to file."""
        rest = itertools.cycle(self._files)
        count = 1 if job == ONE else self._batch

        def judge() -> Any:
            return self._predict(list(itertools.islice(rest, count)))

        for _ in range(-(-len(self._files) // count)):
            judge()
        return judge


def _predictor(name: str, workdir: str, bundle: str, given: Given) -> Predict:
    if name in EXPORTED:
        sys.path.insert(0, bundle)
        from run import Detector  # type: ignore[import-not-found]

        predict: Predict = Detector(bundle, name, threads=len(os.sched_getaffinity(0))).predict
        return predict
    if name == "jax":
        import flowad_jax

        return flowad_jax.load(workdir).predict
    return _with_torch(name, workdir, given)


def _with_torch(name: str, workdir: str, given: Given) -> Predict:
    """JAX's side, but the likelihood maps are computed by PyTorch, for nothing but the time."""
    kind, *words = name.split()
    if kind != "torch":
        raise LookupError(f"no side '{name}'")
    import jax

    from benchmarks.performance.torch_side import TorchSide
    from flowad_jax.inference import loading

    predictor = loading.load(workdir)
    model, of_jax = predictor.model, predictor.log_probs
    network = TorchSide(model.config, given, words)
    network.start("infer")
    known: dict[bytes, list[list[np.ndarray]]] = {}

    def log_probs(images: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        network.log_probs(transforms.normalize(np.stack(images), model.mean, model.std))
        found = []
        for image in images:
            key = image[::8, ::8].tobytes()
            if key not in known:
                known[key] = of_jax([image])
            found.append(known[key])
        return jax.tree.map(lambda *rows: np.concatenate(rows), *found)

    predictor.log_probs = log_probs  # type: ignore[method-assign]
    return predictor.predict


def measure(workdir: str, options: argparse.Namespace, folder: Path) -> Entry:
    """Exports a run and measures it.

    Raises:
      UserError: it is no finished run, cannot be exported, or there are no images.
    """
    from benchmarks.throughput import image_files
    from flowad_jax.bundle.export import export

    config, bundle = load_config(Path(workdir)), str(folder / "detector.flowad")
    named = split([options.input]) if options.input else []
    files = [str(path) for path in image_files(Path(workdir), named, options.images, folder)]
    exported = export(workdir, bundle)
    entry: Entry = {
        "workdir": workdir,
        "method": config.method.name,
        "encoder": config.encoder.name,
        "image_size": config.data.image_size,
        "files": len(files),
        "images": {ONE: 1, MANY: config.eval.batch_size},
        "checked": [one.record() for one in exported.agreements],
        "bytes": {"checkpoint": exported.checkpoint, **exported.sizes},
        "first_decision_s": first_decisions(workdir, bundle, files[0], options.starts, folder),
    }
    arguments = workdir, bundle, told(config, options), files
    sides = options.sides.split(",")
    builders = {side: functools.partial(Side, side, *arguments) for side in sides}
    contest = Contest(entry, builders, options)
    contest.ready()
    contest.warm()
    contest.measure()
    contest.close()
    return contest.entry


def first_decisions(
    workdir: str, bundle: str, file: str, turns: int, folder: Path
) -> dict[str, float]:
    """Medians of seconds from the start of a process to its first prediction, by side."""
    caches = {"jax, empty cache": "", "jax": str(folder / "programs")}
    places = {"run": str(Path(workdir).absolute()), "bundle": bundle, "file": file}
    jobs = {
        name: functools.partial(_start, STARTS["jax"].format(**places), cache)
        for name, cache in caches.items()
    }
    for backend in EXPORTED:
        program = STARTS["bundle"].format(**places, backend=backend)
        jobs[backend] = functools.partial(_start, program, "")
    return _common.medians(jobs, turns)


def _start(program: str, cache: str, turn: int) -> float:
    del turn
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, VARIABLE: cache},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    seconds = time.perf_counter() - started
    _, said = process.communicate()
    if process.returncode:
        raise UserError(f"a first decision failed: {(said.strip().splitlines() or ['?'])[-1]}")
    return seconds


def text(entries: Sequence[Entry]) -> str:
    """Two tables in Markdown, and a line for every side that failed."""
    sides = list(dict.fromkeys(side for entry in entries for side in entry["sides"]))
    starts = list(entries[0]["first_decision_s"])
    speed = [["method, images at once", *sides], ["---", *["---:"] * len(sides)]]
    other = [["method", *starts, "checkpoint", "bundle", *FILES]]
    other.append(["---", *["---:"] * (len(other[0]) - 1)])
    failed = []
    for entry in entries:
        name = NAMES.get(entry["method"], entry["method"])
        for job, count in entry["images"].items():
            found = {side: entry["sides"].get(side, {}).get(job, {}) for side in sides}
            speed.append([f"{name}, {count}", *(_cell(found, side, count) for side in sides)])
            errors = {side: answer["error"] for side, answer in found.items() if "error" in answer}
            failed += [f"{name}, {side}, {count}: {error}." for side, error in errors.items()]
        sizes = entry["bytes"]
        bundle = sum(size for file, size in sizes.items() if file != "checkpoint")
        shown = [sizes["checkpoint"], bundle, *(sizes[file] for file in FILES)]
        seconds = (f"{entry['first_decision_s'][start]:.1f} s" for start in starts)
        other.append([name, *seconds, *(f"{size / 1e6:.1f} MB" for size in shown)])
    return "\n\n".join([markdown_table(speed), markdown_table(other), *failed])


def _cell(found: Entry, side: str, count: int) -> str:
    """Milliseconds per image, and how many times as long the compiled network takes."""
    own, peer = (found.get(name, {}).get("median_s") for name in (side, "torch compile"))
    if not own:
        return "-"
    ratio = f" (**{peer / own:.2f}**)" if peer and side != "torch compile" else ""
    return f"{1000 * own / count:.1f} ms{ratio}"


def main() -> None:
    """Measures, prints the tables and writes the JSON."""
    parser = Parser("python -m benchmarks.deployment", __doc__)
    add_flags(parser, SIDES)
    add, positive = parser.add_argument, _common.positive
    add("--workdir", required=True, help="folders of finished runs, joined by commas")
    add("--input", help="files, folders or patterns, joined by commas")
    add("--images", type=positive, default=16, help="most files to use")
    add("--starts", type=positive, default=3, help="timed, of each side that starts")
    parser.set_defaults(jobs=f"{ONE},{MANY}", compile_jobs=f"{ONE},{MANY}")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    command = shlex.join(["python", "-m", "benchmarks.deployment", *sys.argv[1:]])
    entries = []
    try:
        for workdir in options.workdir.split(","):
            with tempfile.TemporaryDirectory() as folder:
                entries.append(measure(workdir, options, Path(folder)))
            if options.output:
                _common.write(options.output, command=command, runs=entries)
        print(text(entries))
    except UserError as error:
        parser.fail(error)


if __name__ == "__main__":
    main()
