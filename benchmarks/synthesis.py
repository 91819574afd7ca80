"""Synthetic anomalies per second of one core, and what the Poisson solver takes of it.

    python -m benchmarks.synthesis --size=256 --output=synthesis.json

Makes anomalies of every kind from the embedded brick texture, scaled to the given side.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

from flowad_jax.data.sets.textures import build
from flowad_jax.data.transforms import resize_image
from flowad_jax.synthesis import KINDS, draw_source, make, nsa

RUNS = {
    "nsa, binary label": ("nsa", {}),
    "nsa, mixed clone": ("nsa", {"blend": "mixed"}),
    "nsa, logistic-intensity label": ("nsa", {"label": "logistic-intensity"}),
    "nsa, pasted instead of cloned": ("nsa", {"blend": "paste"}),
    **{kind: (kind, {}) for kind in KINDS if kind not in ("nsa", "cutpaste")},
}


def seconds(name: str, options: dict, images: list[np.ndarray], count: int) -> float:
    """Makes ``count`` anomalies and returns the processor time per image."""
    synthesise, started = make(name, **options), time.process_time()
    for number in range(count):
        rng = np.random.default_rng([0, number])
        target = number % len(images)
        synthesise(images[target], images[draw_source(target, len(images), rng)], rng)
    return (time.process_time() - started) / count


def solver_share(images: list[np.ndarray], count: int) -> float:
    """Share of the time of NSA with binary labels that the seamless clone takes."""
    clone, spent = nsa.seamless_clone, 0.0

    def timed(*args, **options):
        nonlocal spent
        started = time.process_time()
        result = clone(*args, **options)
        spent += time.process_time() - started
        return result

    with mock.patch.object(nsa, "seamless_clone", timed):
        whole = seconds("nsa", {}, images, count) * count
    return spent / whole


def main() -> None:
    """Measures every kind three times, prints the medians and writes them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256, help="side of the images")
    parser.add_argument("--count", type=int, default=60, help="images per measurement")
    parser.add_argument("--output", help="JSON file")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    source = build("", "brick", "train", train_images=16)
    images = [resize_image(source[i].image, args.size) for i in range(len(source))]
    rates = {}
    for label, (name, options) in RUNS.items():
        times = [seconds(name, options, images, args.count) for _ in range(3)]
        rates[label] = 1 / statistics.median(times)
        print(f"{label:32} {rates[label]:8.0f} images/s")
    share = solver_share(images, args.count)
    print(f"the Poisson solver takes {share:.0%} of NSA")
    if args.output:
        machine = f"{platform.machine()}, 1 of {os.cpu_count()} cores, OpenCV {cv2.__version__}"
        found = {"size": args.size, "images_per_second": rates, "solver_share": share}
        Path(args.output).write_text(json.dumps({"machine": machine, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
