"""Mean and covariance of more rows than memory holds, in float64, and what shrinks a covariance."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


class Moments:
    """Mean and scatter of rows that come in parts, for P places at once.

    Parts are merged as Chan, Golub and LeVeque do (1983), which cancels nothing: the result does
    not depend on how rows are cut into parts, beyond rounding.

    Attributes:
      count: rows of every place so far.
      mean: (P, C).
      scatter: (P, C, C) sum of the outer products of centred rows.
    """

    def __init__(self, places: int, channels: int):
        """Starts without rows."""
        self.count = 0
        self.mean = np.zeros((places, channels))
        self.scatter = np.zeros((places, channels, channels))

    def add(self, rows: Float[np.ndarray, "P n C"]) -> None:
        """Takes n more rows of every place."""
        rows = np.asarray(rows, np.float64)
        count = rows.shape[1]
        if not count:
            return
        mean = rows.mean(axis=1)
        centred = rows - mean[:, None]
        moved, total = mean - self.mean, self.count + count
        weight = self.count * count / total
        self.scatter += centred.transpose(0, 2, 1) @ centred
        self.scatter += weight * moved[:, :, None] * moved[:, None, :]
        self.mean += moved * (count / total)
        self.count = total

    @property
    def covariance(self) -> Float[np.ndarray, "P C C"]:
        """The scatter divided by the number of rows, the maximum-likelihood estimate."""
        return self.scatter / max(self.count, 1)


def oas_shrinkage(covariance: Float[np.ndarray, "P C C"], count: int) -> Float[np.ndarray, " P"]:
    """Share of the mean variance that best replaces a covariance of few rows.

    Chen, Wiesel, Eldar, Hero: "Shrinkage Algorithms for MMSE Covariance Estimation", 2010, with the
    constants of scikit-learn's `oas`. It is 1 where the covariance is a multiple of the identity.
    """
    channels = covariance.shape[-1]
    variance = np.trace(covariance, axis1=1, axis2=2) / channels
    power = np.mean(covariance**2, axis=(1, 2))
    spread = (count + 1.0) * (power - variance**2 / channels)
    safe = np.where(spread > 0, spread, 1.0)
    return np.where(spread > 0, np.minimum((power + variance**2) / safe, 1.0), 1.0)


def shrunk(
    covariance: Float[np.ndarray, "P C C"], shrinkage: float | Float[np.ndarray, " P"]
) -> Float[np.ndarray, "P C C"]:
    """Replaces a share of a covariance by its mean variance on the diagonal."""
    channels = covariance.shape[-1]
    variance = np.trace(covariance, axis1=1, axis2=2) / channels
    share = np.broadcast_to(shrinkage, variance.shape)
    diagonal = (share * variance)[:, None, None] * np.eye(channels)
    return (1.0 - share)[:, None, None] * covariance + diagonal
