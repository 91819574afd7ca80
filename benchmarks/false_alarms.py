r"""Whether a stated false-alarm rate holds, measured on normal images that nothing was trained on.

    python -m benchmarks.false_alarms --workdir=runs/tile --output=false_alarms.json

Takes the scores that a finished run gives to its held-out images and to its good test images. First
as the run has it: thresholds from the held-out images, alarms among the test images, with the
interval of Clopper and Pearson. Then both sets are thrown together and split anew many times: the
guarantee is an average over such splits, and so is what is measured.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import _common
from flowad_jax.arguments import Parser
from flowad_jax.detector import state, workdir
from flowad_jax.detector.calibration import from_json
from flowad_jax.evaluation import conformal
from flowad_jax.training import scoring
from flowad_jax.training.experiment import build


def normal_scores(directory: str) -> tuple[np.ndarray, np.ndarray]:
    """Image scores of the held-out and of the good test images of a run."""
    system = build(workdir.load_config(directory))
    trained, _, meta = state.of_workdir(system, Path(directory).absolute())
    fitted = from_json(meta["fitted"])
    scored = scoring.score(system, trained, system.features, fitted)
    return fitted.image, scored.scores.image[system.test.labels == 0]


def once(held_out: np.ndarray, test: np.ndarray, rate: float) -> dict:
    """Alarms of the run's own threshold."""
    used = conformal.promised(len(held_out), rate)
    alarms = int(np.sum(conformal.p_values(test, held_out) <= used))
    interval = conformal.binomial_interval(alarms, len(test))
    return {"promised": used, "alarms": alarms, "images": len(test), "interval": interval}


def many(normal: np.ndarray, size: int, rate: float, splits: int) -> dict:
    """Alarm rates over random splits into ``size`` held-out images and the others."""
    rng, used = np.random.default_rng(0), conformal.promised(size, rate)
    rates = []
    for _ in range(splits):
        order = rng.permutation(normal)
        rates.append(np.mean(conformal.p_values(order[size:], order[:size]) <= used))
    low, high = np.percentile(rates, [5, 95])
    return {"promised": used, "mean": float(np.mean(rates)), "percentiles_5_95": [low, high]}


def main() -> None:
    """Measures and prints a table."""
    parser = Parser("python -m benchmarks.false_alarms", __doc__)
    parser.add_argument("--workdir", required=True, help="folder of a finished run")
    parser.add_argument("--rates", default="0.02,0.05,0.1,0.2", help="false-alarm rates")
    parser.add_argument("--splits", type=int, default=2000)
    parser.add_argument("--output", help="JSON file")
    args = parser.parse_args()
    held_out, test = normal_scores(args.workdir)
    normal, rows = np.concatenate([held_out, test]), {}
    print(f"{len(held_out)} held-out images, {len(test)} good test images, {args.splits} splits")
    for rate in map(float, args.rates.split(",")):
        own = once(held_out, test, rate)
        drawn = many(normal, len(held_out), rate, args.splits)
        rows[str(rate)] = {"own": own, "splits": drawn}
        (low, high), (least, most) = own["interval"], drawn["percentiles_5_95"]
        print(
            f"promised {own['promised']:.3f}: {own['alarms']} of {own['images']} alarms ({low:.3f} "
            f"to {high:.3f}); over splits {drawn['mean']:.4f} ({least:.3f} to {most:.3f})"
        )
    if args.output:
        _common.write(args.output, held_out=len(held_out), test=len(test), rates=rows)


if __name__ == "__main__":
    main()
