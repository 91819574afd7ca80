"""CFLOW-AD beside PyTorch + FrEIA: same recipe, features and split, accuracy and speed in one run.

    python -m benchmarks.performance.cflow --config=configs/cflow_magnetic_tile.py \
        --data_root=/path/to/magnetic_tile --seeds=3 --output=cflow.json

Every image batch is encoded once; then our decoders and the peer's take their turn on the same
features, each timed on its own, so that what else the machine does meets both. Both are scored by
the same code. Needs torch and FrEIA 0.2.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from contextlib import contextmanager

import jax
import numpy as np
import torch
from ml_collections import config_dict
from tqdm import tqdm

from benchmarks import _common
from flowad_jax.evaluation import metrics
from flowad_jax.training.experiment import Experiment, build
from flowad_jax.training.optimizer import fresh_state
from flowad_jax.training.step import make_train_step
from peers.cflow import Decoders

SHOWN = ("image_auroc", "pixel_auroc", "aupro_0.30", "aupro_0.05")


class Clock:
    """Seconds by name, and by epoch."""

    def __init__(self) -> None:
        """Starts with no time spent."""
        self.epochs: list[dict[str, float]] = []

    def start_epoch(self) -> None:
        """Opens the account of a new epoch."""
        self.epochs.append({"encoder": 0.0, "jax": 0.0, "torch": 0.0})

    @contextmanager
    def measure(self, name: str):
        """Adds the time of a block."""
        started = time.perf_counter()
        yield
        self.epochs[-1][name] += time.perf_counter() - started

    def per_epoch(self, name: str) -> float:
        """Median seconds per epoch without the first one, which holds the compilation."""
        return statistics.median(epoch[name] for epoch in self.epochs[1:] or self.epochs)


class Pair:
    """Our detector and the peer's on one system."""

    def __init__(self, system: Experiment):
        """Compiles ours and builds the peer's."""
        self.system = system
        self.encode = system.encode
        self.step = make_train_step(system.method, system.optimizer, system.schedule)
        self.log_probs = jax.jit(system.method.log_probs)
        self.state = fresh_state(system)
        config = system.config
        channels = tuple(system.encoder.spec.channels[tap] for tap in system.encoder.taps)
        self.peer = Decoders(channels, config.method.to_dict(), config.train.adam_idle, config.seed)
        self.clock = Clock()

    def train(self) -> None:
        """Trains both for all epochs."""
        config = self.system.config.train
        images = config.epochs * len(self.system.train)
        with tqdm(total=images, unit="img", desc=f"seed {self.system.config.seed}") as bar:
            for epoch in range(config.epochs):
                self.clock.start_epoch()
                for batch in self.system.train_loader.epoch(epoch):
                    losses = self._train_batch(batch)
                    bar.update(int(batch.weight.sum()))
                    bar.set_postfix(losses)

    def _train_batch(self, batch) -> dict[str, float]:
        with self.clock.measure("encoder"):
            encoded = jax.block_until_ready(self._encoded(batch))
        rate = float(self.system.schedule(self.state.step))
        with self.clock.measure("jax"):
            self.state, values = self.step(self.state, encoded)
            jax.block_until_ready(self.state)
        real = batch.weight > 0
        on_host = [np.array(m)[real] for m in encoded.maps]
        with self.clock.measure("torch"):
            loss = self.peer.train_batch(on_host, rate)
        return {"jax": float(values["loss"]), "torch": loss}

    def _encoded(self, batch):
        maps = self.encode(self.system.encoder.variables, batch.image).maps
        return batch._replace(maps=maps, image=None)

    def score(self) -> dict[str, dict[str, float]]:
        """Metrics of both from the last epoch, through the same calibration and scoring."""
        normal = self._likelihoods(self.system.calibration_loader)
        test = self._likelihoods(self.system.test_loader)
        return {name: self._metrics(normal[name], *test[name]) for name in ("jax", "torch")}

    def _likelihoods(self, loader) -> dict[str, tuple]:
        variables = {"params": self.state.params, "buffers": self.state.buffers}
        found: dict[str, list] = {"jax": [], "torch": []}
        masks = []
        for batch in loader.epoch(0):
            real = batch.weight > 0
            encoded = self._encoded(batch)
            ours = self.log_probs(variables, encoded)
            found["jax"].append([np.asarray(m)[real] for m in ours])
            found["torch"].append(self.peer.log_probs([np.array(m)[real] for m in encoded.maps]))
            masks.append(batch.mask[real])
        joined = {
            name: [np.concatenate(scale) for scale in zip(*batches, strict=True)]
            for name, batches in found.items()
        }
        return {name: (maps, np.concatenate(masks)) for name, maps in joined.items()}

    def _metrics(self, normal, maps, masks) -> dict[str, float]:
        size = self.system.image_size
        method, test = self.system.method, self.system.test
        calibrated = self.system.config.eval.scoring == "calibrated"
        fitted = method.calibrate(normal[0], size) if calibrated else None
        scores = method.aggregate(maps, size, fitted)
        return metrics.evaluate(test.labels, scores.image, masks, scores.pixel)


def run(config: config_dict.ConfigDict) -> dict:
    """Trains and scores one seed."""
    pair = Pair(build(config))
    pair.train()
    scored, clock = pair.score(), pair.clock
    images = len(pair.system.train)
    encoder = clock.per_epoch("encoder")
    speed = {}
    for name in ("jax", "torch"):
        seconds = clock.per_epoch(name)
        speed[name] = {
            "decoder_seconds_per_epoch": seconds,
            "images_per_second": images / (encoder + seconds),
        }
    return {
        "seed": config.seed,
        "metrics": scored,
        "speed": speed,
        "encoder_seconds_per_epoch": encoder,
        "ratio": clock.per_epoch("jax") / clock.per_epoch("torch"),
        "epochs": clock.epochs,
    }


def table(runs: list[dict]) -> str:
    """Means and sample standard deviations over the seeds, as Markdown."""
    lines = ["| | flowad_jax | PyTorch + FrEIA |", "|---|---:|---:|"]

    def row(title: str, values: dict[str, list[float]], digits: int) -> None:
        cells = []
        for found in (values["jax"], values["torch"]):
            spread = statistics.stdev(found) if len(found) > 1 else 0.0
            cells.append(f"{statistics.mean(found):.{digits}f} ± {spread:.{digits}f}")
        lines.append(f"| {title} | {' | '.join(cells)} |")

    for metric in SHOWN:
        both = {n: [100 * r["metrics"][n][metric] for r in runs] for n in ("jax", "torch")}
        row(f"{metric}, %", both, 2)
    for title, key, digits in (
        ("decoders, s per epoch", "decoder_seconds_per_epoch", 1),
        ("training with our encoder, images/s", "images_per_second", 1),
    ):
        row(title, {n: [r["speed"][n][key] for r in runs] for n in ("jax", "torch")}, digits)
    ratio = statistics.mean(r["ratio"] for r in runs)
    lines.append(f"| decoder time, ratio | {ratio:.2f} | 1 |")
    return "\n".join(lines)


def main() -> None:
    """Runs all seeds, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/cflow_magnetic_tile.py")
    parser.add_argument("--data_root", default="", help="config.data.root")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--output", help="JSON file with everything measured")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)
    torch.set_num_threads(args.threads)
    runs = []
    for seed in range(args.seeds):
        config = _common.recipe(args.config)
        config.seed = seed
        config.data.root = args.data_root
        config.data.holdout = 0.0  # all images train on both sides
        config.train.epochs = args.epochs or config.train.epochs
        runs.append(run(config))
        print(f"seed {seed}: {json.dumps(runs[-1]['metrics'])}", flush=True)
    print(table(runs))
    if args.output:
        _common.write(args.output, runs=runs)


if __name__ == "__main__":
    main()
