"""When an image is called anomalous: by the scores of held-out normal images, or a threshold.

The arithmetic of `flowad_jax.evaluation`, where it is explained: (cross-)conformal p-values, and an
estimate of the tail where the normal images are too few for a promise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import UserError

TIE = 1e-5  # of the largest magnitude among the normal scores: less is the same score
LARGEST = 10  # excesses that the tail is estimated from
KINDS = ("split", "cross", "cross_fast")
Folds = Sequence[np.ndarray]


def make_card(image: Folds, peak: Folds, rate: float, kind: str, given: float | None) -> Any:
    """Returns what decides as `flowad_jax` has it; empty if nothing does.

    Args:
      image: scores of the held-out images of every fold.
      peak: the largest values of their maps.
      rate: of false alarms that is asked for.
      kind: of calibration, one of `KINDS`.
      given: image score above which an image is anomalous instead.

    Raises:
      UserError: the rate is no probability, or the threshold no number.
    """
    if not 0 < rate < 1:
        raise UserError(f"false_alarm_rate={rate}: a rate lies between 0 and 1, such as 0.01")
    if given is not None and not math.isfinite(given):
        raise UserError(f"threshold={given}: give a finite number")
    scores, peaks = np.concatenate([*image, []]), np.concatenate([*peak, []])
    count = len(scores)
    if not count and given is None:
        return {}
    level = max(rate, 1 / (count + 1))
    limit = tail_threshold if rate < level else rank_threshold
    is_estimate = rate < level or kind == "cross_fast"
    by = "threshold" if given is not None else "estimate" if is_estimate else "promise"
    threshold = limit(scores, rate) if given is None else float(given)
    if by == "promise" and kind != "split":
        threshold = math.inf  # ranked fold by fold, there is no one score
    promised = level if kind == "split" else cross_bound(count, len(image), level)
    return {
        "false_alarm_rate": rate,
        "calibration": kind,
        "images": count,
        "level": level,
        "decided_by": by,
        "promised": None if by == "threshold" or kind == "cross_fast" else promised,
        "image": threshold if math.isfinite(threshold) else None,
        "pixel": pixel if math.isfinite(pixel := limit(peaks, rate)) else None,
    }


def p_value(scores: np.ndarray, normal: Folds) -> float | None:
    """How often a normal image scores as high, by the ranks in K folds; None without images."""
    count = sum(map(len, normal))
    if not count:
        return None
    pairs = zip(scores, normal, strict=True)
    lower = sum(int(np.searchsorted(upper_ends(own), score)) for score, own in pairs)
    return (1 + count - lower) / (count + 1)


def decide(card: Any, score: float, p: float | None) -> bool:
    """Whether an image is anomalous by a card that is not empty."""
    if card["decided_by"] == "threshold":
        return score > card["image"]
    assert p is not None
    low = p <= card["level"]
    return low and score > card["image"] if card["decided_by"] == "estimate" else low


def upper_ends(normal: np.ndarray) -> np.ndarray:
    """The normal scores in order, each the largest number that still is equal to it."""
    return np.sort(normal) + TIE * np.max(np.abs(normal), initial=0.0)


def rank_threshold(normal: np.ndarray, rate: float) -> float:
    """The k-th smallest of n normal scores with ``k = ceil((n + 1) (1 - rate))``."""
    rank = math.ceil(round((len(normal) + 1) * (1 - rate), 9))
    return float(upper_ends(normal)[rank - 1]) if rank <= len(normal) else math.inf


def tail_threshold(normal: np.ndarray, rate: float) -> float:
    """Estimates the score that a normal image exceeds so rarely, by an exponential tail."""
    count = len(normal)
    if count < 2:
        return math.inf
    ordered = np.sort(normal)
    used = min(max(1, count // 2), LARGEST)
    base = ordered[-used - 1]
    total = float(np.sum(ordered[-used:] - base))
    share = (used + 1) / (count + 1)
    return float(max(base + total * ((share / rate) ** (1 / used) - 1), ordered[-1]))


def cross_bound(count: int, folds: int, rate: float) -> float:
    """The largest probability that a cross-conformal p-value is at most ``rate``."""
    possible = math.floor(round((count + 1) * rate, 9)) / (count + 1)
    if possible == 0:
        return 0.0
    return min(1.0, 2 * possible + 2 * (1 - possible) * (folds - 1) / (count + folds))
