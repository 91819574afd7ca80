"""An estimate of rare false alarms, where the normal images are too few to promise any.

Ranks among n normal scores say nothing about rates below ``1 / (n + 1)``: for those, something has
to be assumed about scores that nobody has seen. Here it is that the k largest excesses over the
score below them fall off exponentially, the tail of a generalised Pareto distribution of shape 0
(Pickands: "Statistical Inference Using Extreme Order Statistics", Annals of Statistics 1975).

Its scale is known from k excesses only, and that is paid for. A new score exceeds the (k+1)-th
largest of n with probability ``(k + 1) / (n + 1)``, and if its excess e and theirs are exponential,
``P(e > t * sum) = (1 + t) ** -k``, exactly, whatever the scale. Maximum likelihood for shape and
scale takes the fit for the truth instead: on 5 exponential scores it raises 15 % false alarms where
1 % were asked for, this one 1 %. Lighter tails get fewer than asked for; heavier ones, as the
log-normal's, up to about twice as many.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

LARGEST = 10  # excesses: more see less of the tail and more of what it is no tail of


def threshold(normal: Float[np.ndarray, " n"], rate: float) -> float:
    """Estimates the score that a new normal image exceeds with probability ``rate``.

    It is never below the highest normal score, so that besides the rate is at most ``1 / (n + 1)``
    for exchangeable images, whatever their tail.

    Args:
      normal: scores of normal images; infinity if they are fewer than two.
      rate: at most ``1 / (n + 1)``; above it a rank does better.
    """
    count = len(normal)
    if count < 2:
        return math.inf
    ordered = np.sort(np.asarray(normal, np.float64))
    used = min(max(1, count // 2), LARGEST)
    base = ordered[-used - 1]
    total = float(np.sum(ordered[-used:] - base))
    share = (used + 1) / (count + 1)  # of new scores above the base
    return float(max(base + total * ((share / rate) ** (1 / used) - 1), ordered[-1]))
