"""AU-sPRO, the metric of MVTec LOCO AD: finding enough of a defect counts as finding all of it.

Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection
and Localization", IJCV 130 (2022), section 5. A missing screw may be marked anywhere in its area;
so the overlap with a defect saturates at a share of its area, or at a number of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from flowad_jax.errors import UserError
from flowad_jax.evaluation import aupro
from flowad_jax.evaluation.image_counts import enough
from flowad_jax.types import Defect

LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)
HEADLINE = 0.05


def au_spro(
    defects: Sequence[Sequence[Defect]],
    maps: Sequence[Float[np.ndarray, "H W"]],
    limits: Sequence[float] = LIMITS,
) -> dict[float, float]:
    """Returns the areas under the mean saturated overlap, each divided by its limit.

    Exact: every distinct score is a threshold, and curves are cut at a limit by interpolation.
    Memory beside the arguments: 8 bytes for each pixel without a defect, 20 for each with one.

    Args:
      defects: of each image; none for a good one.
      maps: its anomaly map, of the size of its masks.
      limits: of the false positive rate, over the pixels that are in no defect of their image.

    Raises:
      UserError: shapes that do not fit, an empty mask, a score that is not finite, no defect, or no
        pixel without one.
    """
    _check(defects, maps)
    total = sum(map(len, defects))
    free, scores, weights = [], [], []
    for own, values in zip(defects, maps, strict=True):
        marked = np.zeros(values.shape, bool)
        for defect in own:
            # Of a defect the highest scores count, as many as are enough; ties change no sum.
            count = enough(defect)
            scores.append(np.partition(values[defect.mask], -count)[-count:])
            weights.append(np.full(count, 1 / (total * count)))
            marked |= defect.mask
        free.append(values[~marked])
    normal = np.concatenate(free)
    normal.sort()
    if not normal.size:
        raise UserError("AU-sPRO: every pixel of the test set is in a defect")
    rate, overlap = _curve(normal, np.concatenate(scores), np.concatenate(weights))
    return {limit: float(aupro.area_below(rate, overlap, limit) / limit) for limit in limits}


def _curve(
    normal: Float[np.ndarray, " n"],
    scores: Float[np.ndarray, " m"],
    weights: Float[np.ndarray, " m"],
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """False positive rate and mean overlap before and behind every distinct score of a defect."""
    levels, which = np.unique(scores, return_inverse=True)
    gained = np.cumsum(np.bincount(which, weights)[::-1])
    falling = levels[::-1]
    before, behind = (
        (normal.size - np.searchsorted(normal, falling, side=side)) / normal.size
        for side in ("right", "left")
    )
    rate = np.concatenate([[0], np.stack([before, behind], axis=1).ravel(), [1]])
    steps = np.concatenate([[0], gained])
    overlap = np.concatenate([[0], np.stack([steps[:-1], steps[1:]], axis=1).ravel(), [1]])
    return rate, np.minimum(overlap, 1)


def _check(defects: Sequence[Sequence[Defect]], maps: Sequence[Float[np.ndarray, "H W"]]) -> None:
    if len(defects) != len(maps):
        raise UserError(f"defects of {len(defects)} images but {len(maps)} maps: one of each")
    if not any(map(len, defects)):
        raise UserError("AU-sPRO: the test set has no defect")
    for index, (own, values) in enumerate(zip(defects, maps, strict=True)):
        if not np.isfinite(values).all():
            raise UserError(f"image {index} of the test set has a score that is not finite")
        for defect in own:
            if defect.mask.shape != values.shape or defect.mask.dtype != np.bool_:
                raise UserError(f"image {index}: a mask is not bool of the map's shape")
            if not defect.mask.any():
                raise UserError(f"image {index}: the mask of a defect is empty")
