"""Shows that the embedded textures need the pretrained encoder: the same run with random weights.

    python -m benchmarks.textures --seeds=2 --output=textures.json

Trains `cflow_textures` for every category with ImageNet weights and with random ones, and
prints the metrics of the last epoch.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
from itertools import product
from pathlib import Path

from flowad_jax.data.sets.textures import CARD
from flowad_jax.recipes import cflow_textures
from flowad_jax.training.loop import train

WEIGHTS = ("embedded", "random")
SHOWN = ("image_auroc", "pixel_auroc", "aupro_0.30")


def run(category: str, weights: str, seed: int) -> dict[str, float]:
    """Trains once and returns the metrics of the last epoch."""
    config = cflow_textures.get_config()
    config.seed = seed
    config.data.category = category
    config.data.holdout = 0.0
    config.encoder.weights = weights
    config.train.eval_every = config.train.epochs
    config.train.checkpoint_every = config.train.epochs
    config.eval.pictures_per_kind = 0
    with tempfile.TemporaryDirectory() as workdir:
        return train(config, workdir)["columns"]["last"]


def main() -> None:
    """Runs everything, prints means over the seeds in percent and writes all runs as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", help="JSON file with every run")
    args = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.WARNING)
    runs: dict[str, dict] = {}
    print(f"| category | weights | {' | '.join(SHOWN)} |\n|---|---|{'---:|' * len(SHOWN)}")
    for category, weights in product(CARD.categories, WEIGHTS):
        found = [run(category, weights, seed) for seed in range(args.seeds)]
        runs.setdefault(category, {})[weights] = found
        means = (100 * statistics.mean(values[name] for values in found) for name in SHOWN)
        print(f"| {category} | {weights} | {' | '.join(f'{mean:.1f}' for mean in means)} |")
    if args.output:
        Path(args.output).write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main()
