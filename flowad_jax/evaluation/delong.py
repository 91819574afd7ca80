"""How sure an area under the ROC curve is, without resampling, for one detector or for two.

DeLong, DeLong, Clarke-Pearson: "Comparing the Areas under Two or More Correlated Receiver
Operating Characteristic Curves: A Nonparametric Approach", Biometrics 44 (1988), with the ranks of
Sun and Xu, IEEE Signal Processing Letters 21 (2014).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, stats


def covariance(
    labels: Int[np.ndarray, " N"], scores: Float[np.ndarray, "M N"]
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, "M M"]]:
    """Returns the areas of M detectors on the same images, and their covariance.

    There must be two images of each kind; ties count half.
    """
    normal, anomalous = scores[:, labels == 0], scores[:, labels == 1]
    count, others = anomalous.shape[1], normal.shape[1]
    together = stats.rankdata(np.concatenate([anomalous, normal], axis=1), axis=1)
    # For every image the share of the images of the other kind that it is told apart from.
    of_anomalous = (together[:, :count] - stats.rankdata(anomalous, axis=1)) / others
    of_normal = 1 - (together[:, count:] - stats.rankdata(normal, axis=1)) / count
    spread = np.atleast_2d(np.cov(of_anomalous)) / count + np.atleast_2d(np.cov(of_normal)) / others
    return of_anomalous.mean(axis=1), spread


def interval(
    labels: Int[np.ndarray, " N"], scores: Float[np.ndarray, " N"], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Returns the interval of the area of one detector; None with too few images.

    Normal on the scale of log-odds, so that it stays within 0 and 1. Where the variance is zero, as
    between kinds that are told apart without fault, that of Newcombe.
    """
    kinds = np.bincount(labels, minlength=2)
    if kinds.min() < 2:
        return None
    (area,), spread = covariance(labels, scores[None])
    if spread[0, 0] <= 0 or not 0 < area < 1:
        return newcombe(float(area), int(kinds[0]), int(kinds[1]), confidence)
    width = stats.norm.ppf((1 + confidence) / 2) * math.sqrt(spread[0, 0]) / (area * (1 - area))
    odds = math.log(area / (1 - area))
    low, high = (1 / (1 + math.exp(-(odds + side * width))) for side in (-1, 1))
    return low, high


def newcombe(
    area: float, normal: int, anomalous: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Returns the interval of an area that holds at 0 and 1 too, from the numbers of images alone.

    Method 5 of Newcombe: "Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic. Part 2", Statistics in Medicine 25 (2006).
    """
    z, extra = stats.norm.ppf((1 + confidence) / 2), (normal + anomalous) / 2 - 1

    def excess(true: float) -> float:
        """Above 0 where an area is too far from a true one."""
        spread = 1 + extra * ((1 - true) / (2 - true) + true / (1 + true))
        return (true - area) ** 2 - z**2 * true * (1 - true) * spread / (normal * anomalous)

    near = 1e-12  # 0 and 1 are roots where they are the area
    low = optimize.brentq(excess, 0, area - near, xtol=near) if area > near else 0.0
    high = optimize.brentq(excess, area + near, 1, xtol=near) if area < 1 - near else 1.0
    return float(low), float(high)


def p_value(labels: Int[np.ndarray, " N"], scores: Float[np.ndarray, "2 N"]) -> float:
    """Returns the two-sided p-value that two detectors have the same area; 1 if nothing differs."""
    areas, spread = covariance(labels, scores)
    variance = spread[0, 0] + spread[1, 1] - 2 * spread[0, 1]
    difference = areas[1] - areas[0]
    if variance <= 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.norm.sf(abs(difference) / math.sqrt(variance)))
