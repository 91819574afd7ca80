"""Shows that the embedded textures need the pretrained encoder: the same run with random weights.

    python -m benchmarks.textures --seeds=2 --output=textures.json

Trains the quickstart recipe for every category with ImageNet weights and with random ones, and
prints the metrics of the last epoch.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
from pathlib import Path

from configs import quickstart
from flowad_jax.data.textures import CATEGORIES
from flowad_jax.training.loop import train

WEIGHTS = ("embedded", "random")
SHOWN = ("image_auroc", "pixel_auroc", "aupro_0.30")


def run(category: str, weights: str, seed: int) -> dict[str, float]:
    """Trains once and returns the metrics of the last epoch."""
    config = quickstart.get_config()
    config.seed = seed
    config.data.category = category
    config.data.holdout = 0.0
    config.encoder.weights = weights
    config.train.eval_every = config.train.epochs
    config.train.checkpoint_every = config.train.epochs
    config.eval.pictures_per_kind = 0
    with tempfile.TemporaryDirectory() as workdir:
        return train(config, workdir)["columns"]["last"]


def table(runs: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Means over the seeds in percent, as Markdown."""
    lines = [
        "| category | weights | " + " | ".join(SHOWN) + " |",
        "|---|---|" + "---:|" * len(SHOWN),
    ]
    for category, by_weights in runs.items():
        for weights, found in by_weights.items():
            means = [100 * statistics.mean(values[name] for values in found) for name in SHOWN]
            cells = " | ".join(f"{mean:.1f}" for mean in means)
            lines.append(f"| {category} | {weights} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Runs everything, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", help="JSON file with every run")
    args = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.WARNING)
    runs = {
        category: {w: [run(category, w, seed) for seed in range(args.seeds)] for w in WEIGHTS}
        for category in CATEGORIES
    }
    print(table(runs))
    if args.output:
        Path(args.output).write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main()
