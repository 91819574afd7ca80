"""How sure metrics are: bootstrap over the test images, normal and anomalous ones apart.

An interval says what other test sets of the same kind and size would give to the same detector;
what other seeds of the training would give is another question, which several runs answer.

Efron: "Better Bootstrap Confidence Intervals", JASA 82 (1987), as SciPy computes it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from flowad_jax.evaluation import delong, weighted
from flowad_jax.evaluation.image_counts import ImageCounts
from flowad_jax.evaluation.metrics import METRICS
from flowad_jax.evaluation.outcome import Outcome
from flowad_jax.evaluation.weighted import Values, Weights

CONFIDENCE = 0.95
RESAMPLES = 1999
BATCH = 100  # resampled test sets at a time
CORRECTED = 3000  # with more images, leaving out each in turn takes long and changes nothing

GOOD = "good"  # the kind of normal images
Interval = tuple[float, float]
Statistics = Callable[[Weights], dict[str, Values]]


class Difference(NamedTuple):
    """What one detector has more than another on the same images.

    Attributes:
      value: of the metric.
      interval: with `CONFIDENCE`.
      p_value: two-sided, that there is no difference.
    """

    value: float
    interval: Interval
    p_value: float

    def at(self, value: float) -> Difference:
        """Returns the same around a value that is known exactly."""
        low, high = (end + value - self.value for end in self.interval)
        return self._replace(value=value, interval=(low, high))


def of(outcome: Outcome, exact: Mapping[str, float]) -> dict[str, Interval]:
    """Returns the intervals of the metrics that are defined and that resampling changes.

    None with a single image of a kind. The image AUROC has the interval of DeLong.

    Args:
      outcome: what was found on the test images.
      exact: the metrics themselves, fractions of 1.
    """
    about, found, _ = _bootstrap(outcome.labels, lambda w: weighted.metrics(outcome, w))
    intervals = _around(exact, about, found)
    area = delong.interval(outcome.labels, outcome.scores, CONFIDENCE)
    return intervals | ({"image_auroc": area} if area else {})


def of_ratio(
    labels: Int[np.ndarray, " N"],
    parts: Float[np.ndarray, " N"],
    wholes: Float[np.ndarray, " N"],
) -> Interval | None:
    """Returns the interval of ``sum(parts) / sum(wholes)``, with what each image adds to them."""

    def ratio(weights: Weights) -> dict[str, Values]:
        with np.errstate(invalid="ignore"):
            return {"ratio": (weights @ parts) / (weights @ wholes)}

    about, ends, _ = _bootstrap(labels, ratio)
    return _around(about, about, ends).get("ratio")


def of_overlaps(
    kinds: Sequence[str], counts: ImageCounts, exact: Mapping[str, float], limit: float
) -> dict[str, Interval]:
    """Returns the intervals of the area of each kind with all good images, and of their mean.

    Args:
      kinds: (N,) of the images, ``"good"`` where there is no defect.
      counts: of the same images.
      exact: the areas by kind, and their mean under ``""``.
      limit: of the false positive rate.
    """
    names, strata = np.unique(kinds, return_inverse=True)
    members = {kind: (names[strata] == kind) | (names[strata] == GOOD) for kind in exact if kind}

    def areas(weights: Weights) -> dict[str, Values]:
        with np.errstate(invalid="ignore"):
            found = {
                kind: weighted.aupro(counts, (weights * member).astype(np.float32), limit)
                for kind, member in members.items()
            }
        return found | {"": np.mean(list(found.values()), axis=0)}

    about, ends, _ = _bootstrap(strata, areas)
    return _around(exact, about, ends)


def of_difference(one: Outcome, other: Outcome) -> dict[str, Difference]:
    """Returns what ``other`` has more than ``one``, which saw the same images in the same order.

    The p-value of the image AUROC is DeLong's. That of another metric is twice the share of the
    resampled test sets in which the difference has the other sign.
    """

    def differences(weights: Weights) -> dict[str, Values]:
        first, second = (weighted.metrics(each, weights) for each in (one, other))
        return {name: second[name] - first[name] for name in METRICS}

    about, found, drawn = _bootstrap(one.labels, differences)
    p_values = {name: _other_side(values) for name, values in drawn.items()}
    if "image_auroc" in found:
        p_values["image_auroc"] = delong.p_value(one.labels, np.stack([one.scores, other.scores]))
    differing = {
        name: ends if np.isfinite(ends).all() else (about[name], about[name])
        for name, ends in found.items()
    }
    return {
        name: Difference(about[name], (float(low), float(high)), p_values[name])
        for name, (low, high) in differing.items()
    }


def _around(
    exact: Mapping[str, float], about: Mapping[str, float], found: Mapping[str, Any]
) -> dict[str, Interval]:
    """Intervals around exact values."""
    # The few thresholds of the resampled curves leave a small error, the same in all of them.
    moved = {name: np.clip(ends + exact[name] - about[name], 0, 1) for name, ends in found.items()}
    return {
        name: (float(ends[0]), float(ends[1]))
        for name, ends in moved.items()
        if np.isfinite(ends).all()
    }


def _other_side(values: Values) -> float:
    fewer = min(np.sum(values <= 0), np.sum(values >= 0))
    return float(min(1.0, 2 * (1 + fewer) / (1 + len(values))))


def _bootstrap(
    groups: Int[np.ndarray, " N"], statistics: Statistics
) -> tuple[dict[str, float], dict[str, Any], dict[str, Values]]:
    """Returns values, ends of intervals and resampled values of the statistics that are finite.

    Images are drawn from each group apart. Ends are NaN where resampling changes nothing.
    """
    about = {
        name: float(values[0]) for name, values in statistics(np.ones((1, len(groups)))).items()
    }
    names = [name for name, value in about.items() if np.isfinite(value)]
    strata = [np.flatnonzero(groups == value) for value in np.unique(groups)]
    if not names or min(map(len, strata)) < 2:
        return about, {}, {}

    def of_rows(*drawn: Any, axis: int) -> Any:
        """Statistics (M, ...) of the images (..., n) drawn from each stratum."""
        rows = np.concatenate(drawn, axis=axis)
        found = statistics(_multiplicities(rows.reshape(-1, rows.shape[-1]), len(groups)))
        return np.stack([found[name] for name in names]).reshape(-1, *rows.shape[:-1])

    # Where resampling changes nothing, ends are NaN, after divisions by zero.
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            strata,
            of_rows,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=BATCH,
            confidence_level=CONFIDENCE,
            method="BCa" if len(groups) <= CORRECTED else "percentile",
            rng=np.random.default_rng(0),
        )
    ends = dict(zip(names, np.stack(found.confidence_interval, axis=1), strict=True))
    return about, ends, dict(zip(names, found.bootstrap_distribution, strict=True))


def _multiplicities(rows: Int[np.ndarray, "B n"], count: int) -> Weights:
    """How often each of ``count`` images is in each row."""
    places = np.arange(len(rows))[:, None] * count + rows
    return np.bincount(places.ravel(), minlength=len(rows) * count).reshape(len(rows), count)
