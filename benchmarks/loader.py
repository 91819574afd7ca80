"""How many training images per second the loader makes, with threads and with processes.

    python -m benchmarks.loader --config=configs/cflow_magnetic_tile.py \
        --data_root=/path/to/magnetic_tile --output=loader.json

Every kind of worker makes whole epochs of batches that nobody uses: decoded anew from files, or
resized images kept in memory, as from the second epoch on. Kinds take turns, the first turn is
left out; processes that are not asked make a few batches ahead and wait.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

from ml_collections import config_dict

from benchmarks import _common
from flowad_jax.data.pipeline import Loader
from flowad_jax.training.system import build

KINDS = {"threads": "thread", "processes": "process"}
PLACES = ("files", "memory")


def loaders(config: config_dict.ConfigDict, workers: Sequence[int]) -> dict[tuple, Loader]:
    """A loader for every place, kind and number of workers."""
    made = {}
    for place in PLACES:
        for kind in KINDS:
            for number in workers:
                if kind == "threads" or number:
                    config.data.cache_mb = 0 if place == "files" else 2048
                    config.data.workers = number if kind == "threads" else 0
                    config.data.processes = number if kind == "processes" else 0
                    made[place, kind, number] = build(config).train_loader
    return made


def measure(config: config_dict.ConfigDict, workers: Sequence[int], turns: int) -> list[dict]:
    """Returns a row ``{"from", "kind", "workers", "images_per_second"}`` for each."""
    made = loaders(config, workers)
    times: dict[tuple, list[float]] = {key: [] for key in made}
    for turn in range(1 + turns):
        for key, loader in made.items():
            batches = loader.epoch(turn)
            next(batches)  # what it takes to start is not throughput
            started = time.perf_counter()
            images = sum(float(batch.weight.sum()) for batch in batches)
            times[key].append((time.perf_counter() - started) / images)
    for loader in made.values():
        loader.close()
    return [
        dict(zip(("from", "kind", "workers"), key, strict=True))
        | {"images_per_second": 1 / statistics.median(own[1:])}
        for key, own in times.items()
    ]


def text(rows: list[dict]) -> str:
    """A table in Markdown: a row for each kind and number of workers."""
    lines = ["| workers | from files | from memory |", "|---|---:|---:|"]
    rates: dict[str, dict[str, Any]] = {}
    for row in rows:
        kind = row["kind"] if row["workers"] > 1 else KINDS[row["kind"]]
        name = f"{row['workers']} {kind}" if row["workers"] else "none"
        rates.setdefault(name, {})[row["from"]] = row["images_per_second"]
    lines += [
        f"| {name} | {own['files']:.0f} | {own['memory']:.0f} |" for name, own in rates.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table and writes the rows."""
    parser = _common.parser(__doc__, "configs/cflow_magnetic_tile.py")
    options = parser.parse_args()
    config, workers = _common.asked(options)
    rows = measure(config, workers, options.turns)
    print(text(rows))
    if options.output:
        _common.write(options.output, config=options.config, rows=rows)


if __name__ == "__main__":
    main()
