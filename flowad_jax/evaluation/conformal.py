"""Decisions with a stated false-alarm rate, from the scores of normal images alone.

Split-conformal inference (Vovk, Gammerman, Shafer: "Algorithmic Learning in a Random World", 2005;
Bates, Candès, Lei, Romano, Sesia: "Testing for Outliers with Conformal p-values", 2023): if a new
normal image is exchangeable with n held-out ones, the rank of its score among theirs is uniform,
whatever the detector. A larger score is more anomalous throughout.

The same image may get a score with other last digits on another device or in another release of
jax, for float32 sums depend on their order. Scores that differ by less than `TIE` are therefore
equal, and an equal score counts as one that is as high: p-values grow by it and stay valid.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
from scipy import stats

from flowad_jax.errors import UserError

TIE = 1e-5  # of the largest magnitude among the normal scores


def p_values(scores: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """How often a normal image scores as high or higher: ``(1 + #{normal >= score}) / (n + 1)``.

    For a new normal image the probability of a p-value of at most ``a`` is at most ``a``. Scores
    that are equal up to `TIE` count as equal.

    Args:
      scores: (N,) of new images.
      normal: (n,) of held-out normal images, in any order.

    Returns:
      (N,) in (0, 1].
    """
    below = np.searchsorted(_upper_ends(normal), scores, side="left")
    return (1 + len(normal) - below) / (len(normal) + 1)


def threshold(normal: np.ndarray, rate: float) -> float:
    """The score above which an image is called anomalous.

    It is the k-th smallest of the n normal scores with ``k = ceil((n + 1) (1 - rate))``, and above
    it all that is equal up to `TIE`, so that ``score > threshold`` says the same as
    ``p_value <= rate``.

    Args:
      normal: (n,) scores of held-out normal images.
      rate: largest probability of calling a new normal image anomalous.

    Returns:
      A score; infinity where so few images can promise no such rate.

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

    Args:
      count: n held-out images.
      rate: the rate asked for.
      confidence: share of the draws that fall into the interval.
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


def card(image: np.ndarray, peak: np.ndarray, rate: float) -> dict[str, Any]:
    """What can be promised with the held-out images of a run.

    Args:
      image: (n,) their image scores.
      peak: (n,) the largest value of each of their maps.
      rate: the false-alarm rate asked for.

    Returns:
      ``false_alarm_rate`` as asked for; ``promised``, which is above it where the ``images`` are
      too few; for the latter the thresholds ``image`` and ``pixel`` and the ``interval`` of
      `true_rate_interval`. The map of a new normal image exceeds ``pixel`` anywhere with at most
      that probability.
    """
    count = len(image)
    used = promised(count, rate)
    return {
        "false_alarm_rate": rate,
        "promised": used,
        "images": count,
        "image": threshold(image, used),
        "pixel": threshold(peak, used),
        "interval": list(true_rate_interval(count, used)),
    }
