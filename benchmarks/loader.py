"""How many training images per second the loader makes, with threads and with processes.

    python -m benchmarks.loader --config=configs/cflow_magnetic_tile.py \
        --data_root=/path/to/magnetic_tile --output=loader.json

Every kind of worker makes whole epochs of batches that nobody uses: decoded anew from files, or
resized images kept in memory, as from the second epoch on. Processes that are not asked make a
few batches ahead and wait.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from itertools import product

from ml_collections import config_dict

from benchmarks import _common
from flowad_jax.data.loader import Loader
from flowad_jax.training.experiment import build


def seconds_per_image(loader: Loader, turn: int) -> float:
    """Makes an epoch; what it takes to start, until the first batch, is not throughput."""
    batches = loader.epoch(turn)
    next(batches)
    started = time.perf_counter()
    images = sum(float(batch.weight.sum()) for batch in batches)
    return (time.perf_counter() - started) / images


def measure(config: config_dict.ConfigDict, workers: Sequence[int], turns: int) -> list[dict]:
    """Returns a row ``{"from", "kind", "workers", "images_per_second"}`` for each."""
    loaders = {}
    for key in product(("files", "memory"), ("threads", "processes"), workers):
        place, kind, number = key
        if kind == "threads" or number:
            config.data.cache_mb = 0 if place == "files" else 2048
            config.data.workers = number if kind == "threads" else 0
            config.data.processes = number if kind == "processes" else 0
            loaders[key] = build(config).train_loader
    jobs = {key: partial(seconds_per_image, loader) for key, loader in loaders.items()}
    times = _common.medians(jobs, turns)
    for loader in loaders.values():
        loader.close()
    names = ("from", "kind", "workers", "images_per_second")
    return [dict(zip(names, (*key, 1 / own), strict=True)) for key, own in times.items()]


def main() -> None:
    """Measures, prints the table and writes the rows."""
    parser = _common.parser(__doc__, "configs/cflow_magnetic_tile.py")
    options = parser.parse_args()
    config, workers = _common.asked(options)
    rows = measure(config, workers, options.turns)
    print("| workers | from files | from memory |\n|---|---:|---:|")
    for files, memory in zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True):
        name = f"{files['workers']} {files['kind']}" if files["workers"] else "none"
        name = name.replace("1 threads", "1 thread").replace("1 processes", "1 process")
        rates = (f"{row['images_per_second']:.0f}" for row in (files, memory))
        print(f"| {name} | {' | '.join(rates)} |")
    if options.output:
        _common.write(options.output, config=options.config, rows=rows)


if __name__ == "__main__":
    main()
