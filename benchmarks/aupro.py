"""Times the exact pixel metrics on a test set of the size of MVTec AD's largest pictures.

    python benchmarks/aupro.py --output=aupro.json

83 smooth random maps of 512 x 512 with the number and the sizes of defects found in a real test
set (one image in four is normal). The exact metrics are measured whole. The loop over 1000
thresholds, as common in published code, would take half an hour: it is measured at a few
thresholds spread over the range and extrapolated, and the output says so. Memory is the growth of
the peak resident set of the process (``ru_maxrss``) over what it was with the input in place.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from typing import Any

import numpy as np
from scipy import ndimage
from skimage import measure

from flowad_jax import files
from flowad_jax.arguments import Parser
from flowad_jax.evaluation import metrics
from flowad_jax.report import results


def draw(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (N, H, W) masks and float32 maps: smooth noise, raised on most of each defect."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), bool)
    maps = np.empty((count, size, size), np.float32)
    for index in range(count):
        noise = ndimage.gaussian_filter(rng.standard_normal((size, size), np.float32), 6)
        maps[index] = noise / noise.std()
        if index % 4:
            shape = ndimage.gaussian_filter(rng.standard_normal((size, size), np.float32), 40)
            masks[index] = shape > np.quantile(shape, rng.uniform(0.93, 0.995))
            maps[index] += 3 * ndimage.gaussian_filter(masks[index].astype(np.float32), 8)
    return masks, maps


def loop_step(masks: np.ndarray, maps: np.ndarray, threshold: float) -> tuple[float, ...]:
    """One turn of the usual loop: false positive rate, mean overlap and mean IoU.

    As in the published code that CFLOW-AD took over, each turn finds the regions again, compares
    inside the box of each region, fills holes, and computes an IoU that nobody reads.
    """
    predicted = maps > threshold
    overlaps, ious = [], []
    for mask, found in zip(masks, predicted, strict=True):
        for region in measure.regionprops(measure.label(mask, connectivity=2)):
            overlaps.append(np.logical_and(found[region.slice], region.image_filled).sum())
            overlaps[-1] /= region.area
        if mask.any():
            ious.append(np.logical_and(mask, found).sum() / np.logical_or(mask, found).sum())
    false = np.logical_and(~masks, predicted).sum() / (~masks).sum()
    return float(false), float(np.mean(overlaps)), float(np.mean(ious))


def run(count: int, size: int, loop_samples: int, seed: int) -> dict[str, Any]:
    """Measures both ways."""

    def peak() -> int:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    masks, maps = draw(count, size, seed)
    before, start, busy = peak(), time.perf_counter(), time.process_time()
    values = metrics.pixel_metrics(masks, maps)
    exact = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - busy,
        "peak_growth_bytes": peak() - before,
        "input_bytes": masks.nbytes + maps.nbytes,
        "metrics": values,
    }
    start = time.perf_counter()
    for threshold in np.linspace(maps.max(), maps.min(), loop_samples + 2)[1:-1]:
        loop_step(masks, maps, threshold)
    per_step = (time.perf_counter() - start) / loop_samples
    return {
        "images": count,
        "size": size,
        "defect_regions": sum(ndimage.label(m, structure=np.ones((3, 3)))[1] for m in masks),
        "exact": exact,
        "loop": {
            "seconds_per_threshold": per_step,
            "thresholds_measured": loop_samples,
            "seconds_for_1000_thresholds": 1000 * per_step,
            "extrapolated": True,
        },
    }


def main() -> None:
    """Prints the figures, and writes them where ``--output`` says."""
    parser = Parser("python benchmarks/aupro.py", __doc__)
    parser.add_argument("--images", type=int, default=83)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--loop_samples", type=int, default=3, help="thresholds of the loop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", help="file for the figures as JSON")
    args = parser.parse_args()
    found = run(args.images, args.size, args.loop_samples, args.seed)
    exact, loop = found["exact"], found["loop"]
    print(
        f"{args.images} maps of {args.size} x {args.size}, {found['defect_regions']} defects\n"
        f"exact, all pixel metrics: {exact['seconds']:.2f} s ({exact['cpu_seconds']:.2f} s CPU), "
        f"{exact['peak_growth_bytes'] / 2**20:.0f} MiB above the input\n"
        f"loop, AUPRO only: {loop['seconds_for_1000_thresholds'] / 60:.1f} min for 1000 thresholds "
        f"(extrapolated from {args.loop_samples})"
    )
    if args.output:
        found |= {"machine": platform.platform(), "versions": results.versions()}
        files.write_text(args.output, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
