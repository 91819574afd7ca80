"""Decisions with a stated false-alarm rate, from the scores of held-out normal images alone.

Split-conformal inference (Vovk, Gammerman, Shafer: "Algorithmic Learning in a Random World", 2005;
Bates, Candès, Lei, Romano, Sesia: "Testing for Outliers with Conformal p-values", 2023): if a new
normal image is exchangeable with n held-out ones, the rank of its score among theirs is uniform,
whatever the detector. A larger score is more anomalous throughout. Where several detectors each
hold other images out, all images count, see `cross_p_values`.

The same image may get a score with other last digits on another device or in another release of
jax, for float32 sums depend on their order. Scores that differ by less than `TIE` are therefore
equal, and an equal score counts as one that is as high: p-values grow by it and stay valid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np
from jaxtyping import Float
from scipy import stats

from flowad_jax.errors import UserError

TIE = 1e-5  # of the largest magnitude among the normal scores


def p_values(
    scores: Float[np.ndarray, " N"], normal: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " N"]:
    """How often a normal image scores as high or higher: ``(1 + #{normal >= score}) / (n + 1)``.

    For a new normal image the probability of a p-value of at most ``a`` is at most ``a``. Scores
    that are equal up to `TIE` count as equal.

    Args:
      scores: of new images.
      normal: of held-out normal images, in any order.
    """
    below = np.searchsorted(_upper_ends(normal), scores, side="left")
    return (1 + len(normal) - below) / (len(normal) + 1)


def cross_p_values(
    scores: Float[np.ndarray, "K N"], normal: Sequence[Float[np.ndarray, " n"]]
) -> Float[np.ndarray, " N"]:
    """Ranks images among all normal ones, fold by fold; with one fold the same as `p_values`.

    Cross-conformal p-values (Vovk: "Cross-conformal predictors", 2015), whose sets lie within the
    intervals of CV+ (Barber, Candès, Ramdas, Tibshirani: "Predictive inference with the
    jackknife+", 2021): ``(1 + #{normal >= score}) / (n + 1)``, counted over all folds, where the
    detector of a fold scores both the new image and the fold's images, which it was not trained
    on. `cross_bound` is what they promise.

    Args:
      scores: of N new images by the detectors of K folds.
      normal: scores of every fold's own images by its detector, n in all.
    """
    count = sum(map(len, normal))
    lower = sum(
        np.searchsorted(_upper_ends(own), row, side="left")
        for row, own in zip(scores, normal, strict=True)
    )
    return (1 + count - lower) / (count + 1)


def cross_bound(count: int, folds: int, rate: float) -> float:
    """The largest probability that a cross-conformal p-value is at most ``rate``.

    It is ``2 a + 2 (1 - a) (K - 1) / (n + K)``, where a is the largest p-value that is possible up
    to the rate: the p-values ``p_k`` of the folds are valid, twice a weighted mean of valid
    p-values is valid (Vovk, Wang: "Combining p-values via averaging", Biometrika 2020), and with
    weights ``(n_k + 1) / (n + K)`` their mean is ``(K + n_>) / (n + K)``, ``n_>`` normal scores
    being as high. Folds need not be of one size. For equal ones this is the bound of Vovk,
    Nouretdinov, Manokhin, Gammerman ("Cross-conformal predictive distributions", 2018) that enters
    theorem 4 of Barber et al. What is measured lies near a.

    Args:
      count: n, the normal images of all folds.
      folds: K.
      rate: of false alarms.
    """
    possible = math.floor(round((count + 1) * rate, 9)) / (count + 1)
    if possible == 0:
        return 0.0
    return min(1.0, 2 * possible + 2 * (1 - possible) * (folds - 1) / (count + folds))


def threshold(normal: Float[np.ndarray, " n"], rate: float) -> float:
    """The score above which an image is called anomalous.

    It is the k-th smallest of the n normal scores with ``k = ceil((n + 1) (1 - rate))``, and above
    it all that is equal up to `TIE`, so that ``score > threshold`` says the same as
    ``p_value <= rate``.

    Args:
      normal: scores of held-out normal images; infinity where they are too few for the rate.
      rate: largest probability of calling a new normal image anomalous.

    Raises:
      UserError: the rate is no probability.
    """
    check_rate(rate)
    # The product is exact in the numbers that people type, or rounds to a whole one.
    rank = math.ceil(round((len(normal) + 1) * (1 - rate), 9))
    return float(_upper_ends(normal)[rank - 1]) if rank <= len(normal) else math.inf


def _upper_ends(normal: np.ndarray) -> np.ndarray:
    """The normal scores in order, each the largest number that still is equal to it."""
    return np.sort(normal) + TIE * np.max(np.abs(normal), initial=0.0)


def check_rate(rate: float) -> None:
    """Raises a UserError if a false-alarm rate is not between 0 and 1."""
    if not isinstance(rate, Real) or not 0 < rate < 1:
        raise UserError(f"eval.false_alarm_rate={rate}: a rate lies between 0 and 1, such as 0.01")


def true_rate_interval(count: int, rate: float, confidence: float = 0.9) -> tuple[float, float]:
    """Where the false-alarm rate of one threshold lies, over the draw of the held-out images.

    The guarantee is an average over such draws; for one of them the rate is Beta distributed with
    parameters ``l`` and ``n + 1 - l``, ``l = floor((n + 1) rate)``, if scores do not tie.
    ``count`` is n, and the share ``confidence`` of the draws falls into the interval.
    """
    exceeding = math.floor(round((count + 1) * rate, 9))
    if exceeding == 0:
        return 0.0, 0.0
    tail = (1 - confidence) / 2
    low, high = stats.beta.ppf([tail, 1 - tail], exceeding, count + 1 - exceeding)
    return float(low), float(high)


def binomial_interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of Clopper and Pearson (1934) for a share seen as ``count`` of ``total``."""
    found = stats.binomtest(count, total).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def promised(count: int, rate: float) -> float:
    """The rate asked for, or the least one that ``count`` held-out images can promise."""
    return max(rate, 1 / (count + 1))


def needed(rate: float) -> int:
    """The fewest held-out images that can promise a rate: n with ``1 / (n + 1) <= rate``."""
    return math.ceil(round(1 / rate, 9)) - 1
