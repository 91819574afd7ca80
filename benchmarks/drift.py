r"""Whether the drift statistic keeps its promise: streams without drift, in random orders.

    python -m benchmarks.drift --workdir=runs/tile --output=drift.json

The scores that a finished run gives to its held-out images and to its good test images are thrown
together, as nothing sets them apart. For every stream they are shuffled; the first ones stand for
the held-out images, the others come one after the other. At most a share alpha of the streams may
ever raise the alarm. Beside it: streams of which the second half is shifted.
"""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from benchmarks import _common
from benchmarks.false_alarms import normal_scores
from flowad_jax.arguments import Parser
from flowad_jax.evaluation import conformal
from flowad_jax.flowad_runtime.drift import Drift

ALPHAS = (0.01, 0.05, 0.1)
SHIFTS = (0.5, 1.0, 2.0)  # in standard deviations of the scores


def largest(scores: np.ndarray, held_out: int) -> float:
    """The largest statistic of one stream."""
    drift = Drift([scores[:held_out]])
    for score in scores[held_out:]:
        drift.add([score])
    return drift.largest


def found_after(scores: np.ndarray, held_out: int, shift: float, alpha: float) -> int | None:
    """Images from the shift of the second half to the alarm; None without one."""
    drift = Drift([scores[:held_out]], alpha)
    stream = scores[held_out:]
    middle = len(stream) // 2
    for number, score in enumerate(stream):
        if drift.add([score + shift * scores.std() * (number >= middle)]):
            return number - middle + 1
    return None


def main() -> None:
    """Measures and prints what was found."""
    parser = Parser("python -m benchmarks.drift", __doc__)
    parser.add_argument("--workdir", required=True, help="folder of a finished run")
    parser.add_argument("--streams", type=_common.positive, default=1000)
    parser.add_argument("--output", help="JSON file")
    options = parser.parse_args()
    held_out, test = normal_scores(options.workdir)
    scores, rng = np.concatenate([held_out, test]), np.random.default_rng(0)
    orders = [rng.permutation(scores) for _ in range(options.streams)]
    highest = np.array([largest(one, len(held_out)) for one in tqdm(orders, disable=None)])
    found: dict[str, object] = {"held_out": len(held_out), "stream": len(test)}
    for alpha in ALPHAS:
        alarms = int(np.sum(highest >= 1 / alpha))
        low, high = conformal.binomial_interval(alarms, len(orders))
        found[f"alpha {alpha:g}"] = {"alarms": alarms, "streams": len(orders)}
        print(f"alpha {alpha:g}: {alarms} of {len(orders)} streams alarm ({low:.4f} to {high:.4f})")
    for shift in SHIFTS:
        after = [found_after(one, len(held_out), shift, 0.01) for one in orders[:200]]
        known = sorted(x for x in after if x is not None)
        middle = int(np.median(known)) if known else None
        found[f"shift {shift:g}"] = {"found": len(known), "streams": len(after), "images": middle}
        print(
            f"shift of {shift:g} standard deviations: {len(known)} of {len(after)} found, after "
            f"{middle} images in the middle"
        )
    if options.output:
        _common.write(options.output, **found)


if __name__ == "__main__":
    main()
