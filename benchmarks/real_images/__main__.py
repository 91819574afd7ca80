r"""Trains every method on every set of real images under one budget, and keeps what comes out.

    python -m benchmarks.real_images --folder=tables --magnetic_tile=/path/to/magnetic_tile \
        --ball_screw=/path/to/ball_screw/dataset.csv --output=docs/measured/real_images.json
    python -m benchmarks.real_images.table --write

A short run first says how many epochs fit into --seconds of training; then each seed trains with so
many, at most those of the paper. The last epoch counts, scores are calibrated, a fifth of the good
images is held out and sets the threshold. --output is written after every run, and a run that is in
it is not repeated: stop it and start it again as you like. ELPV is used if elpv-dataset is
installed, the textures always. For other methods, sets or seeds: --methods, --sets, --seeds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from benchmarks import _common, _runs
from benchmarks.real_images import sets
from flowad_jax.arguments import Parser
from flowad_jax.recipes.base import base

PILOT = 2  # epochs: the first one compiles
COMMON = {
    "data.holdout": 0.2,
    "eval.false_alarm_rate": 0.05,
    "eval.calibration_images": 100,
    "eval.pictures_per_kind": 0,
    "eval.report_images": 0,
    "train.eval_every": 10**6,
    "train.checkpoint_every": 10**6,
}


def words(config: str, workdir: Path, settings: Mapping[str, Any]) -> list[str]:
    """The command that trains."""
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", "flowad_jax", "train", f"--config={config}"]
    return [*command, f"--workdir={workdir}", *flags]


def train(config: str, workdir: Path, settings: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
    """Trains once; returns results and wall seconds."""
    command, started = words(config, workdir, settings), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{workdir} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads((workdir / "results.json").read_text()), time.perf_counter() - started


def epochs(name: str, one: sets.ImageSet, folder: Path, seconds: float) -> int:
    """The epochs that fit into a budget, from the second epoch of a short run."""
    method, own = sets.METHODS[name]
    most = base(method).train.epochs
    if most == 1:
        return 1
    settings = {**COMMON, **one.settings, **own, "train.epochs": 3 * PILOT}
    settings |= kept_features(sets.recipe(method, one), folder)
    workdir = folder / "pilot"
    shutil.rmtree(workdir, ignore_errors=True)
    command = words(sets.recipe(method, one), workdir, settings)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as pilot:
        while len(taken := epoch_seconds(workdir)) < PILOT:
            if pilot.poll() is not None:
                raise SystemExit(f"{workdir} failed: run {' '.join(command)}")
            time.sleep(0.2)
        pilot.kill()  # what follows would score the test images
    return max(1, min(most, int(seconds / taken[-1])))


def kept_features(name: str, folder: Path) -> dict[str, Any]:
    """Where features are kept from run to run, if the recipe's images never change."""
    config = _common.recipe(name)
    varies = config.data.rotation_degrees or config.data.sharpen or config.synthesis.name
    return {} if varies else {"cache.folder": folder / "cache", "cache.place": "disk"}


def epoch_seconds(workdir: Path) -> list[float]:
    """The seconds of the epochs that a run has behind it."""
    log = workdir / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    return [row["seconds"] for row in map(json.loads, lines) if row["kind"] == "train"]


def cell(
    name: str, one: sets.ImageSet, seed: int, count: int, workdir: Path, folder: Path
) -> dict[str, Any]:
    """One run: its figures, times and sizes."""
    method, own = sets.METHODS[name]
    settings = {**COMMON, **one.settings, **own, "train.epochs": count, "seed": seed}
    settings |= kept_features(sets.recipe(method, one), folder)
    found, wall = train(sets.recipe(method, one), workdir, settings)
    state = _runs.end(workdir)["state"]
    learned = jax.tree.leaves({name: state[name] for name in ("params", "constants")})
    return {
        "epochs": count,
        "metrics": found["columns"]["last"],
        "false_alarms": found["thresholds"].get("test"),
        "train_seconds": found["timing"]["seconds_per_epoch"] * count,
        "wall_seconds": round(wall, 1),
        "images_per_second": found["timing"]["test_images_per_second"],
        "image_size": found["data"]["image_size"],
        "images": {name: found["data"][name]["images"] for name in ("train", "holdout", "test")},
        "megabytes": round(sum(leaf.nbytes for leaf in learned) / 1e6, 2),
    }


def main() -> None:
    """Runs what is missing, seeds slowest, so that every method has one before any has two."""
    parser = Parser("benchmarks.real_images", __doc__ or "")
    parser.add_argument("--folder", required=True, help="for runs, cached features and tables")
    parser.add_argument("--output", required=True, help="JSON file")
    parser.add_argument("--magnetic_tile", default="", help="root of Magnetic Tile Defects")
    parser.add_argument("--ball_screw", default="", help="table of the ball screw")
    parser.add_argument("--seconds", type=float, default=450.0, help="of training, per run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=";".join(sets.METHODS), help="between semicolons")
    parser.add_argument("--sets", default="", help="names; default: all that are there")
    args = parser.parse_args()
    folder, output = Path(args.folder).absolute(), Path(args.output)
    found = json.loads(output.read_text()) if output.is_file() else {"runs": {}, "epochs": {}}
    if found.setdefault("seconds", args.seconds) != args.seconds:
        raise SystemExit(f"{output} has a budget of {found['seconds']} s: name another file")
    known = sets.find(folder, args.magnetic_tile, args.ball_screw)
    names = args.sets.split(",") if args.sets else [*known]
    for seed in range(args.seeds):
        for name in names:
            for method in args.methods.split(";"):
                key = f"{name}/{method}/{seed}"
                if key in found["runs"]:
                    continue
                one, workdir = known[name], folder / "runs" / key
                shutil.rmtree(workdir, ignore_errors=True)
                count = found["epochs"].get(f"{name}/{method}")
                if count is None:
                    count = epochs(method, one, folder, args.seconds)
                    found["epochs"][f"{name}/{method}"] = count
                run = cell(method, one, seed, count, workdir, folder)
                found["runs"][key] = run
                found["titles"] = {**found.get("titles", {}), name: one.title}
                _common.write(str(output), **found)
                auroc = 100 * run["metrics"]["image_auroc"]
                print(f"{key}: {count} epochs, image AUROC {auroc:.1f}", flush=True)


if __name__ == "__main__":
    main()
