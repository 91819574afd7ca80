"""Seconds per forward pass of an encoder, JAX beside PyTorch, with the same weights and image.

    python -m benchmarks.performance.encoder --output=encoder.json

Each framework has a process of its own, bound to the same cores; they take turns, so that
what else the machine does meets both. A line is only worth reading if the machine was idle:
PyTorch's threads suffer far more from a busy neighbour than XLA's.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from benchmarks import _common

ENCODERS = (
    "efficientnet_lite.efficientnet_lite0",
    "resnet.resnet18",
    "resnet.wide_resnet50_2",
)
FRAMEWORKS = ("jax", "torch", "torch channels_last")

_forward: Callable[[], Any]  # of this process, every tap


def _jax_forward(name: str, image: np.ndarray) -> Callable[[], list[np.ndarray]]:
    """Weights and image are on the device before."""
    import jax

    from tests.encoders import maps

    variables, pixels = jax.device_put((maps.random_variables(name), image))
    apply = jax.jit(maps.every_tap(name).apply)
    return lambda: [np.asarray(tap) for tap in jax.block_until_ready(apply(variables, pixels))]


def _torch_forward(name: str, image: np.ndarray, channels_last: bool) -> Callable[[], Any]:
    """Weights and image have their memory format before."""
    import torch

    from peers import encoders as peers

    family, variant = name.split(".")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if family == "resnet":
        model, taps = peers.resnet(variant, "reflect"), peers.resnet_taps
    else:
        model = peers.efficientnet_lite(variant, image.shape[1:3])
        taps = peers.efficientnet_lite_taps
    form = torch.channels_last if channels_last else torch.contiguous_format
    model = peers.fill(model, peers.random_state(model)).to(memory_format=form)
    pixels = peers.channels_first(image).contiguous(memory_format=form)
    return lambda: taps(model, pixels)


def _start(framework: str, name: str, batch: int, side: int, cores: int) -> None:
    global _forward
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    image = np.random.default_rng(0).standard_normal((batch, side, side, 3), np.float32)
    if framework == "jax":
        _forward = _jax_forward(name, image)
    else:
        _forward = _torch_forward(name, image, framework.endswith("channels_last"))


def _means() -> list[float]:
    return [float(np.abs(tap).mean()) for tap in _forward()]


def _seconds(calls: int) -> list[float]:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        _forward()
        times.append(time.perf_counter() - start)
    return times


def measure(name: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Returns median and best seconds of each framework for one encoder and batch size."""
    spawn = multiprocessing.get_context("spawn")
    pools = {}
    for framework in FRAMEWORKS:
        arguments = (framework, name, batch, options.side, options.cores)
        pools[framework] = ProcessPoolExecutor(1, spawn, _start, arguments)
    means = [pool.submit(_means).result() for pool in pools.values()]
    np.testing.assert_allclose(means, [means[0]] * len(means), rtol=1e-3)
    times: dict[str, list[float]] = {framework: [] for framework in FRAMEWORKS}
    for _ in range(options.turns):
        for framework, pool in pools.items():
            # The first call meets the neighbour's caches.
            times[framework] += pool.submit(_seconds, options.calls + 1).result()[1:]
    for pool in pools.values():
        pool.shutdown()
    median = {framework: statistics.median(found) for framework, found in times.items()}
    best = {framework: min(found) for framework, found in times.items()}
    ratio = median["jax"] / median["torch"]
    return {"encoder": name, "batch": batch, "median_s": median, "best_s": best, "ratio": ratio}


def main() -> None:
    """Prints a table; a ratio below 1 means that JAX is faster."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--calls", type=int, default=4, help="in each turn")
    parser.add_argument("--output", help="JSON file")
    options = parser.parse_args()
    results = []
    print(f"{'encoder':40}{'batch':>6}" + "".join(f"{f:>22}" for f in FRAMEWORKS) + "  JAX/torch")
    for name in options.encoders:
        for batch in options.batches:
            found = measure(name, batch, options)
            times = "".join(f"{1000 * found['median_s'][f]:19.1f} ms" for f in FRAMEWORKS)
            print(f"{name:40}{batch:6}{times}{found['ratio']:11.2f}", flush=True)
            results.append(found)
    if options.output:
        _common.write(options.output, options=vars(options), results=results)


if __name__ == "__main__":
    main()
