"""Seconds per forward pass of an encoder, JAX beside PyTorch, with the same weights and image.

    python -m benchmarks.encoder --output=encoder.json

Each framework has a process of its own, bound to the same cores; they take turns, so that
what else the machine does meets both. A line is only worth reading if the machine was idle:
PyTorch's threads suffer far more from a busy neighbour than XLA's.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

ENCODERS = (
    "efficientnet_lite.efficientnet_lite0",
    "resnet.resnet18",
    "resnet.wide_resnet50_2",
)
FRAMEWORKS = ("jax", "torch", "torch channels_last")


def jax_forward(name: str, image: np.ndarray) -> Callable[[], list[np.ndarray]]:
    """Every tap of our encoder; weights and image are on the device before."""
    import jax

    from tests.encoders import maps

    module, _ = maps.every_tap(name)
    variables, pixels = jax.device_put((maps.random_variables(name), image))
    apply = jax.jit(module.apply)
    return lambda: [np.asarray(tap) for tap in jax.block_until_ready(apply(variables, pixels))]


def torch_forward(name: str, image: np.ndarray, channels_last: bool) -> Callable[[], Any]:
    """Every tap of the peer; weights and image have their memory format before."""
    import torch

    from peers import encoders as peers

    family, variant = name.split(".")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if family == "resnet":
        model, taps = peers.resnet(variant, "reflect"), peers.resnet_taps
    else:
        model = peers.efficientnet_lite(variant, image.shape[1:3])
        taps = peers.efficientnet_lite_taps
    peers.fill(model, peers.random_state(model))
    form = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=form)
    pixels = peers.channels_first(image).contiguous(memory_format=form)
    return lambda: taps(model, pixels)


def worker(framework: str, name: str, batch: int, side: int, cores: int, pipe: Connection) -> None:
    """Answers a number with the seconds of as many calls; 0 ends it."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    image = np.random.default_rng(0).standard_normal((batch, side, side, 3), np.float32)
    if framework == "jax":
        forward = jax_forward(name, image)
    else:
        forward = torch_forward(name, image, framework.endswith("channels_last"))
    pipe.send([float(np.abs(tap).mean()) for tap in forward()])
    while calls := pipe.recv():
        pipe.send([seconds(forward) for _ in range(calls)])


def seconds(forward: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    forward()
    return time.perf_counter() - start


def measure(name: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of each framework for one encoder and batch size."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = {}, []
    for framework in FRAMEWORKS:
        pipes[framework], theirs = context.Pipe()
        arguments = (framework, name, batch, options.side, options.cores, theirs)
        workers.append(context.Process(target=worker, args=arguments, daemon=True))
        workers[-1].start()
    means = [pipe.recv() for pipe in pipes.values()]
    np.testing.assert_allclose(means, [means[0]] * len(means), rtol=1e-3)
    measured: dict[str, list[float]] = {framework: [] for framework in FRAMEWORKS}
    for _ in range(options.turns):
        for framework, pipe in pipes.items():
            pipe.send(options.calls + 1)
            measured[framework] += pipe.recv()[1:]  # the first meets the neighbour's caches
    for pipe, process in zip(pipes.values(), workers, strict=True):
        pipe.send(0)
        process.join()
    median = {f: statistics.median(times) for f, times in measured.items()}
    best = {f: min(times) for f, times in measured.items()}
    return {"encoder": name, "batch": batch, "median_s": median, "best_s": best}


def parse() -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--calls", type=int, default=4, help="in each turn")
    parser.add_argument("--output", help="JSON file")
    return parser.parse_args()


def main() -> None:
    """Prints a table; a ratio below 1 means that JAX is faster."""
    options, results = parse(), []
    print(f"{'encoder':40}{'batch':>6}" + "".join(f"{f:>22}" for f in FRAMEWORKS) + "  JAX/torch")
    for name in options.encoders:
        for batch in options.batches:
            result = measure(name, batch, options)
            median = result["median_s"]
            result["ratio"] = median["jax"] / median["torch"]
            times = "".join(f"{1000 * median[f]:19.1f} ms" for f in FRAMEWORKS)
            print(f"{name:40}{batch:6}{times}{result['ratio']:11.2f}", flush=True)
            results.append(result)
    if options.output:
        with open(options.output, "w") as file:
            json.dump({"options": vars(options), "results": results}, file, indent=2)


if __name__ == "__main__":
    main()
