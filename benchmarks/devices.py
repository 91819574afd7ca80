"""One device and several: how far apart the ends of the same trainings are.

    python -m benchmarks.devices --output=devices.json

This is about correctness and says nothing about speed, for simulated devices share the cores of
the processor. Each recipe is trained on 1, 2, 4 and 8 of them, on small images for two epochs.
Compared are the losses of all epochs, the parameters (the largest difference over the largest value
of its tensor) and the image AUROC. Rounding differs where sums are cut at other places.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from benchmarks import _common
from benchmarks._runs import finish, start
from flowad_jax.arguments import Parser
from flowad_jax.detector.model import build_model
from flowad_jax.detector.state import of_workdir
from flowad_jax.detector.workdir import load_config
from flowad_jax.report.results import markdown_table
from flowad_jax.training import metrics_log

RECIPES = ("cflow_textures", "msflow_textures", "sanflow_textures", "ssnf_textures")
SHORT = {
    "data.image_size": 64,
    "train.batch_size": 8,
    "train.epochs": 2,
    "train.eval_every": 2,
    "eval.report_images": 0,
    "eval.pictures_per_kind": 0,
}
HEADER = ("method", "devices", "loss", "parameters", "image AUROC, points")


def trained(recipe: str, devices: int, folder: Path) -> dict[str, Any]:
    """The end of a training on so many simulated devices."""
    workdir = folder / f"{recipe}_{devices}"
    environment = {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    finish(start(f"configs/{recipe}.py", workdir, SHORT, [], environment))
    model = build_model(load_config(workdir))
    state, *_ = of_workdir(model, workdir)  # brings it onto the device that there is
    results = json.loads((workdir / "results.json").read_text())
    return {
        "params": jax.device_get(state.params),
        "losses": [row["loss"] for row in metrics_log.read(workdir) if row["kind"] == "train"],
        "image_auroc": results["columns"]["last"]["image_auroc"],
    }


def apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """How far two ends are from each other."""
    losses = zip(one["losses"], other["losses"], strict=True)
    pairs = zip(*(jax.tree.leaves(end["params"]) for end in (one, other)), strict=True)
    return {
        "loss": max(abs(b / a - 1) for a, b in losses),
        "parameters": max(_largest(*pair) for pair in pairs),
        "image_auroc": 100 * abs(other["image_auroc"] - one["image_auroc"]),
    }


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    scale = float(np.max(np.abs(a)))
    return float(np.max(np.abs(a - b))) / scale if scale else math.inf * bool(np.any(b))


def main() -> None:
    """Trains, prints the table and writes the JSON."""
    parser = Parser("python -m benchmarks.devices", __doc__)
    parser.add_argument("--recipes", default=",".join(RECIPES), help="of configs/, comma list")
    parser.add_argument("--devices", default="1,2,4,8", help="the first is what others are held to")
    parser.add_argument("--output", help="JSON file")
    options = parser.parse_args()
    numbers = [int(number) for number in options.devices.split(",")]
    recipes = options.recipes.split(",")
    rows, found = [HEADER, ("---", *["---:"] * 4)], []
    bar = tqdm(total=len(recipes) * len(numbers), unit="run")
    with tempfile.TemporaryDirectory() as folder, bar:
        for recipe in recipes:
            ends = []
            for number in numbers:
                ends.append(trained(recipe, number, Path(folder)))
                bar.update()
            for number, ended in zip(numbers[1:], ends[1:], strict=True):
                difference = apart(ends[0], ended)
                found.append({"recipe": recipe, "devices": number, **difference})
                loss, parameters, auroc = difference.values()
                small = (f"{loss:.0e}", f"{parameters:.0e}")
                rows.append((recipe, str(number), *small, f"{auroc:.2f}"))
    print(markdown_table(rows))
    if options.output:
        _common.write(options.output, apart_from_one=found)


if __name__ == "__main__":
    main()
