"""How fast a trained detector judges images, by three clocks.

    python -m benchmarks.throughput --workdir=runs/cflow --output=throughput.json

model       encoder and flows, for a batch that is on the device already
processing  with all that `Predictor.predict` does to arrays: resize, normalise, move to the device,
            aggregate, scale the map to the image, p-value, regions
files       with decoding; the files have been read before and are likely in the system's cache

Nothing is written, so heat maps are not part of it. The clocks take turns, so that what else the
machine does meets all of them. Without ``--input`` the images are the test images of the run; where
these are no files, they become PNG files. Of fewer than 100 batches, p99 is the slowest. Memory is
the largest resident set while the first batches compile, and after them (Linux); the peak of the
device is that since the process started.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from benchmarks import _common
from benchmarks.performance.jobs import host_peak_bytes
from benchmarks.performance.msflow_sides import forget_peak
from flowad_jax.arguments import Parser, fail
from flowad_jax.data import sources, transforms
from flowad_jax.data.images import read_image
from flowad_jax.data.inputs import find, split
from flowad_jax.data.record import Source
from flowad_jax.data.subset import evenly_spaced
from flowad_jax.detector.model import checked
from flowad_jax.detector.workdir import load_config
from flowad_jax.errors import UserError
from flowad_jax.inference.loading import load
from flowad_jax.inference.predictor import Predictor
from flowad_jax.report.results import markdown_table

TITLES = {"model": "model", "processing": "+ processing", "files": "+ files"}
PEAKS = {
    "compiling": "peak memory, compiling",
    "running": "peak memory",
    "device": "of the device",
}
LEAST = 3  # batches of each clock, however long they take

Job = Callable[[int], Any]  # does the n-th batch


def image_files(workdir: Path, inputs: Sequence[str], limit: int, folder: Path) -> list[Path]:
    """Finds up to ``limit`` image files, evenly spaced among the inputs or the run's test images.

    Test images that are no files are written to ``folder``.

    Raises:
      UserError: an input matches no image, or the test images are gone.
    """
    if inputs:
        found = [*find(inputs, leave_out=workdir).images.values()]
        chosen = np.linspace(0, len(found) - 1, min(limit, len(found))).round().astype(int)
        return [found[index] for index in chosen]
    source = evenly_spaced(own_images(workdir), limit)
    if all(Path(path).is_file() for path in source.paths):
        return [Path(path) for path in source.paths]
    paths = [folder / f"{index}.png" for index in range(len(source))]
    for index, path in enumerate(paths):
        Image.fromarray(source[index].image).save(path)
    return paths


def own_images(workdir: Path) -> Source:
    """The images that a run was tested on."""
    data = load_config(workdir).data
    place = (data.name, data.root or "", data.category or "", "test")
    return checked("data.options", sources.build, *place, **data.options.to_dict())


def jobs(
    detector: Predictor, paths: Sequence[Path], arrays: Sequence[np.ndarray]
) -> dict[str, Job]:
    """What each clock measures, for batches of the detector's size."""
    size, model, variables = detector.batch_size, detector.model, detector.parts[0].variables
    log_probs = jax.jit(model.method.log_probs)  # compiled once, for this and for the detector

    def batch(items: Sequence, turn: int) -> list:
        return [items[(turn * size + row) % len(items)] for row in range(size)]

    pixels = np.stack([detector.load_image(array).resized for array in batch(arrays, 0)])
    image = jax.device_put(transforms.normalize(pixels, model.mean, model.std))

    def run_model(turn: int) -> None:
        jax.block_until_ready(log_probs(variables, model.encode(model.encoder.variables, image)))

    return {
        "model": run_model,
        "processing": lambda turn: detector.predict(batch(arrays, turn)),
        "files": lambda turn: detector.predict(batch(paths, turn)),
    }


def measure(todo: dict[str, Job], batch_size: int, seconds: float) -> dict[str, Any]:
    """Runs the three clocks in turn for some seconds, after a first call of each that compiles."""
    _peak_since_last_asked()
    first = {name: _seconds(job, 0) for name, job in todo.items()}
    compiling = _peak_since_last_asked()
    times: dict[str, list[float]] = {name: [] for name in todo}
    started, turn = time.perf_counter(), 0
    while turn < LEAST or time.perf_counter() - started < seconds:
        turn += 1
        for name, job in todo.items():
            times[name].append(_seconds(job, turn))
    return {
        "batch_size": batch_size,
        "compile_seconds": max(0.0, first["model"] - statistics.median(times["model"])),
        "peak_bytes": {
            "compiling": compiling,
            "running": _peak_since_last_asked(),
            "device": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        },
        "clocks": {name: _clock(own, batch_size, first[name]) for name, own in times.items()},
    }


def _seconds(job: Job, turn: int) -> float:
    started = time.perf_counter()
    job(turn)
    return time.perf_counter() - started


def _clock(times: list[float], batch_size: int, first: float) -> dict[str, float]:
    p50, p99 = np.quantile(times, (0.5, 0.99), method="inverted_cdf").tolist()
    return {
        "batches": len(times),
        "images_per_second": batch_size * len(times) / sum(times),
        "p50_seconds": p50,
        "p99_seconds": p99,
        "first_seconds": first,
    }


def _peak_since_last_asked() -> int | None:
    """Largest resident set of this process in bytes; None where the system does not tell."""
    with contextlib.suppress(OSError):
        peak = host_peak_bytes()
        forget_peak()
        return peak
    return None


def run(
    workdir: Path,
    inputs: Sequence[str] = (),
    batch_sizes: Sequence[int] = (),
    seconds: float = 10.0,
    limit: int = 64,
) -> dict[str, Any]:
    """Measures all batch sizes, small ones first; none given means 1 and the run's own.

    Raises:
      UserError: the folder holds no finished run, or there are no images.
    """
    detector = load(workdir)
    sizes = sorted(set(batch_sizes or (1, detector.batch_size)))
    with tempfile.TemporaryDirectory() as folder:
        paths = image_files(workdir, inputs, limit, Path(folder))
        arrays = [read_image(path) for path in paths]
        rows = []
        for detector.batch_size in sizes:
            todo = jobs(detector, paths, arrays)
            rows.append(measure(todo, detector.batch_size, seconds))
    return {
        "workdir": str(workdir),
        "method": detector.name,
        "encoder": detector.model.encoder.spec.name,
        "image_size": list(detector.canvas.shape),
        "decisions": bool(detector.thresholds),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "images": {
            "count": len(paths),
            "formats": sorted({path.suffix.lower() for path in paths}),
            "mean_megapixels": statistics.mean(image[..., 0].size for image in arrays) / 1e6,
        },
        "rows": rows,
    }


def text(found: dict[str, Any]) -> str:
    """What was measured and two tables, in Markdown."""
    images = found["images"]
    clocks: list[Sequence[str]] = [("batch", "clock", "images/s", "p50", "p99", "batches")]
    memory: list[Sequence[str]] = [("batch", "compilation", *PEAKS.values())]
    clocks.append(("---:", "---", *["---:"] * 4))
    memory.append(["---:"] * 5)
    for row in found["rows"]:
        size = str(row["batch_size"])
        for name, clock in row["clocks"].items():
            times = (f"{1e3 * clock[key]:.1f} ms" for key in ("p50_seconds", "p99_seconds"))
            rate, batches = f"{clock['images_per_second']:.1f}", str(clock["batches"])
            clocks.append((size, TITLES[name], rate, *times, batches))
        peaks = (row["peak_bytes"][name] for name in PEAKS)
        shown = ("-" if peak is None else f"{peak / 2**20:.0f} MiB" for peak in peaks)
        memory.append((size, f"{row['compile_seconds']:.1f} s", *shown))
    size = " x ".join(map(str, found["image_size"]))
    return (
        f"{found['method']}, {found['encoder']}, {size} px, on {found['device']}; "
        f"{images['count']} images ({', '.join(images['formats'])}) of "
        f"{images['mean_megapixels']:.2f} megapixels on average\n\n"
        f"{markdown_table(clocks)}\n\n{markdown_table(memory)}"
    )


def _sizes(value: str) -> list[int]:
    return [_common.positive(number) for number in value.split(",")]


def main() -> None:
    """Measures, prints the tables and writes everything."""
    parser = Parser("python -m benchmarks.throughput", __doc__)
    add = parser.add_argument
    add("--workdir", type=Path, required=True, help="folder of a finished run")
    add("--input", help="files, folders or patterns, joined by commas")
    add("--batch_sizes", type=_sizes, default=(), help="e.g. 1,8; default: 1 and the run's own")
    add("--seconds", type=float, default=10.0, help="for each batch size, all clocks together")
    add(
        "--images",
        type=_common.positive,
        default=64,
        help="most to use; all are held decoded",
    )
    add("--output", help="JSON file with everything measured")
    args = parser.parse_args()
    try:
        inputs = split([args.input]) if args.input else []
        found = run(args.workdir, inputs, args.batch_sizes, args.seconds, args.images)
        print(text(found))
        if args.output:
            _common.write(args.output, **found)
    except UserError as error:
        fail(1, error)


if __name__ == "__main__":
    main()
