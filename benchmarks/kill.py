r"""Kills a training at random moments and compares its end with one that was left alone.

    python -m benchmarks.kill --kills=20 --output=kill.json
    python -m benchmarks.kill --kills=6 \
        --recipes configs/msflow_textures.py configs/ssnf_textures.py

For every recipe one run goes through. Others, of the same recipe, are killed with SIGKILL again
and again and started anew until they end: after a random time, and every third time while a
checkpoint is being written. In the end parameters, optimizer, metrics and logs (without the times
in them) must be the same to the last bit, and no kill may cost a complete checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import _common
from benchmarks._runs import end, finish, start, steps
from flowad_jax.arguments import Parser

# Small enough to end within a minute, large enough to write several checkpoints.
SHORT = {
    "data.image_size": 64,
    "train.epochs": 6,
    "train.checkpoint_every": 1,
    "train.eval_every": 2,
    "eval.report_images": 0,
    "eval.pictures_per_kind": 0,
}


def unfinished(workdir: Path) -> set[tuple[str, int]]:
    """Folders of checkpoints that are being written, or that an earlier kill left behind."""
    found = set()
    for folder in (workdir / "checkpoints").glob("*.unfinished"):
        with contextlib.suppress(FileNotFoundError):  # it was renamed meanwhile
            found.add((folder.name, folder.stat().st_ino))
    return found


def kill(process: subprocess.Popen, workdir: Path, seconds: float, at_checkpoint: bool) -> str:
    """Kills a run after some time, or while it writes its next checkpoint; says which."""
    left = time.monotonic() + seconds
    before = unfinished(workdir)
    while process.poll() is None:
        if unfinished(workdir) - before if at_checkpoint else time.monotonic() > left:
            process.kill()
            process.communicate()
            return "checkpoint" if at_checkpoint else "moment"
        time.sleep(0.0005 if at_checkpoint else 0.01)
    finish(process)
    return "ended"


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Names of whatever is not the same to the last bit."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [d for key in one for d in differences(one[key], other[key], f"{name}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, pair in pairs for d in differences(*pair, f"{name}/{i}")]
    if isinstance(one, jax.Array) and jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
        return differences(*map(jax.random.key_data, (one, other)), name)
    same = np.asarray(one).tobytes() == np.asarray(other).tobytes()
    return [] if same and type(one) is type(other) else [name]


def measure(recipe: str, kills: int, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Kills until the number is reached and the run under way has ended."""
    rng, count = random.Random(seed), {"moment": 0, "checkpoint": 0, "ended": 0}
    lost, wrong = 0, []
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone"
        for name in ("warm-up", "alone"):  # the first one compiles
            started = time.monotonic()
            finish(start(recipe, Path(folder) / name, SHORT, overrides))
        length, expected = time.monotonic() - started, end(alone)
        while (done := count["moment"] + count["checkpoint"]) < kills:
            workdir, outcome = Path(folder) / f"killed{count['ended']}", ""
            while outcome != "ended":
                before = steps(workdir)
                process = start(recipe, workdir, SHORT, overrides)
                wait = float("inf") if done >= kills else rng.uniform(0, length)
                outcome = kill(process, workdir, wait, done < kills and done % 3 == 2)
                count[outcome] += 1
                done += outcome != "ended"
                lost += bool(before) and steps(workdir)[-1:] < before[-1:]
                print(f"{outcome}: {workdir.name}, checkpoints {steps(workdir)}", flush=True)
            wrong += differences(expected, end(workdir))
    return {"kills": count, "lost": lost, "different": wrong, "seconds_alone": length}


def main() -> None:
    """Measures, prints and writes the figures; fails if anything was lost or differs."""
    parser = Parser("python -m benchmarks.kill", __doc__)
    add = parser.add_argument
    add("--recipes", nargs="+", default=["configs/cflow_textures.py"], help="files of configs/")
    add("--kills", type=int, default=20, help="of each recipe")
    add("--seed", type=int, default=0, help="of the moments")
    add("--output", help="JSON file")
    options, overrides = parser.parse_known_args()
    found = {}
    for recipe in options.recipes:
        found[recipe] = measure(recipe, options.kills, options.seed, overrides)
        print(json.dumps({recipe: found[recipe]}, indent=2), flush=True)
    if options.output:
        _common.write(options.output, recipes=found)
    raise SystemExit(any(one["lost"] or one["different"] for one in found.values()))


if __name__ == "__main__":
    main()
