"""Two thresholds for the pixels of a U-Flow detector: U-Flow's own and the conformal one.

    python -m benchmarks.a_contrario --workdir=runs/tile_uflow --output=a_contrario.json

U-Flow's threshold expects so many false alarms in an image (--expected) under its model, and needs
no images for it; the conformal one is fitted to held-out images and promises at most
eval.false_alarm_rate of good images with any pixel above it. Both are applied to the test images of
a finished run: how many good images have an alarm anywhere, how many defective ones, and of all
test pixels precision, recall and F1.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import _common
from flowad_jax.arguments import Parser
from flowad_jax.detector import state, workdir
from flowad_jax.detector.calibration import decisions
from flowad_jax.evaluation import a_contrario
from flowad_jax.evaluation.conformal import binomial_interval
from flowad_jax.methods import uflow
from flowad_jax.training.experiment import build


def judged(maps: np.ndarray, labels: np.ndarray, masks: np.ndarray) -> dict[str, Any]:
    """What a decision about every pixel (N, H, W) amounts to."""
    alarms = maps.any((1, 2))
    hits = int((maps & masks).sum())
    good = labels == 0
    count = int(alarms[good].sum())
    return {
        "good_with_alarm": count,
        "good": int(good.sum()),
        "interval": binomial_interval(count, int(good.sum())),
        "defective_with_alarm": int(alarms[~good].sum()),
        "defective": int((~good).sum()),
        "precision": hits / max(int(maps.sum()), 1),
        "recall": hits / max(int(masks.sum()), 1),
        "f1": 2 * hits / max(int(maps.sum()) + int(masks.sum()), 1),
    }


def main() -> None:
    """Compares both on the test images of a run."""
    parser = Parser("python -m benchmarks.a_contrario", __doc__)
    parser.add_argument("--workdir", required=True, help="of a finished U-Flow run")
    parser.add_argument("--expected", type=float, nargs="+", default=[1.0, 0.01, 1e-4])
    parser.add_argument("--output", help="JSON file")
    args = parser.parse_args()
    path = Path(args.workdir).absolute()
    config = workdir.load_config(path)
    experiment = build(config, split=state.split_of(path, config), for_training=False)
    trained, _, meta = state.of_workdir(experiment, path)
    fitted = state.fitted_of(meta, config)
    assert fitted is not None
    options = {key: value for key, value in config.method.to_dict().items() if key != "name"}
    latents = jax.jit(uflow.make_flows(**options).latents)
    variables = {"params": trained.params, "buffers": trained.buffers}
    threshold = decisions([fitted], config).card["pixel"]
    masks: list[np.ndarray] = []
    found: dict[str, list[np.ndarray]] = {"conformal": []}
    with closing(experiment.features.test.epoch(0)) as batches:
        for batch in batches:
            real = np.asarray(batch.weight) > 0
            masks.append(np.asarray(batch.mask)[real])
            seen = experiment.evaluator.log_probs(variables, batch)
            pixel = experiment.evaluator.scores([x[real] for x in seen], fitted.calibration).pixel
            found["conformal"].append(pixel > threshold)
            z, _ = latents(variables, batch.maps)
            inside = [np.asarray(x, np.float64)[real] for x in z]
            nfa = a_contrario.log_nfa(inside, experiment.image_size)
            for expected in args.expected:
                alarms = a_contrario.detections(nfa, expected)
                found.setdefault(f"expected {expected:g}", []).append(alarms)
    labels, truth = experiment.test.labels, np.concatenate(masks)
    result = {name: judged(np.concatenate(x), labels, truth) for name, x in found.items()}
    for name, one in result.items():
        low, high = (100 * end for end in one["interval"])
        print(
            f"{name}: good images with an alarm {one['good_with_alarm']} of {one['good']} "
            f"({low:.1f} to {high:.1f} %), defective {one['defective_with_alarm']} of "
            f"{one['defective']}; pixels: precision {100 * one['precision']:.1f}, recall "
            f"{100 * one['recall']:.1f}, F1 {100 * one['f1']:.1f} %"
        )
    if args.output:
        _common.write(args.output, workdir=path.name, thresholds=result)


if __name__ == "__main__":
    main()
