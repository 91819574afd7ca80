"""The metrics of many selections of the same test images at once: an image counts k times or never.

Image level is exact; pixel level goes by the few hundred thresholds of `ImageCounts`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from flowad_jax.evaluation.image_counts import ImageCounts
from flowad_jax.evaluation.metrics import AUPRO_LIMITS, IMAGE_METRICS, PIXEL_METRICS
from flowad_jax.evaluation.outcome import Outcome

Weights = Float[np.ndarray, "B N"]  # how often each of N images is in each of B selections
Curve = Float[np.ndarray, "B K"]  # counts at K falling thresholds
Values = Float[np.ndarray, " B"]


def metrics(outcome: Outcome, weights: Weights) -> dict[str, Values]:
    """Returns every metric of `METRICS` for every selection; NaN where it is undefined."""
    falling = np.argsort(-outcome.scores, kind="stable")
    last_of_ties = np.append(np.diff(outcome.scores[falling]) != 0, True)
    drawn = weights[:, falling]
    true = np.cumsum(drawn * outcome.labels[falling], axis=1)[:, last_of_ties]
    false = np.cumsum(drawn, axis=1)[:, last_of_ties] - true
    with np.errstate(invalid="ignore", divide="ignore"):
        values = [_auroc(false, true), _average_precision(false, true)]
        found = dict(zip(IMAGE_METRICS, values, strict=True))
        if outcome.pixel is None or outcome.region is None:
            return found | dict.fromkeys(PIXEL_METRICS, np.full(len(weights), np.nan))
        weights = weights.astype(np.float32)
        false, true = (np.asarray(weights @ rows, np.float64) for rows in outcome.pixel[:2])
        values = [_auroc(false, true), _average_precision(false, true), _best_f1(false, true)]
        values += [aupro(outcome.region, weights, limit) for limit in AUPRO_LIMITS]
        return found | dict(zip(PIXEL_METRICS, values, strict=True))


def _auroc(false: Curve, true: Curve) -> Values:
    return _area(false, true) / (false[:, -1] * true[:, -1])


def _average_precision(false: Curve, true: Curve) -> Values:
    gained = np.diff(true, prepend=0)
    precision = true / np.maximum(true + false, 1)
    return np.sum(gained * precision, axis=1) / true[:, -1]


def _best_f1(false: Curve, true: Curve) -> Values:
    return np.max(2 * true / (true + false + true[:, -1:]), axis=1)


def aupro(counts: ImageCounts, weights: Weights, limit: float) -> Values:
    """Returns the area under the mean overlap, up to a false positive rate and divided by it."""
    false, overlap = (
        np.asarray(weights @ rows, np.float64) for rows in (counts.false, counts.overlap)
    )
    rate = false / false[:, -1:]
    return _area(rate, overlap / (weights @ counts.regions)[:, None], limit) / limit


def _area(x: Curve, y: Curve, limit: float = np.inf) -> Values:
    """Areas below curves that rise from 0, for x up to a limit."""
    x, y = (np.pad(np.asarray(values, np.float64), ((0, 0), (1, 0))) for values in (x, y))
    width, height = np.diff(x, axis=1), np.diff(y, axis=1)
    inside = np.clip(limit - x[:, :-1], 0, width)
    share = np.divide(inside, width, out=np.zeros_like(width), where=width > 0)
    return np.sum(inside * (y[:, :-1] + 0.5 * share * height), axis=1)
