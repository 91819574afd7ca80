"""How well anomalies are found and located: exact metrics as fractions of 1.

Image level is scikit-learn's. Pixel level takes every pixel of the test set and every distinct
score as a threshold; see ``aupro.py``. Images may differ in size: pixels then count alike, so that
large images weigh more. A metric that the data cannot define is NaN, and ``undefined`` says why.
Images whose label is unknown count in no metric.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from flowad_jax.errors import UserError
from flowad_jax.evaluation import aupro
from flowad_jax.evaluation.aupro import Images

IMAGE_METRICS = ("image_auroc", "image_ap")
AUPRO_LIMITS = (0.30, 0.05)
AUPRO_METRICS = tuple(f"aupro_{limit:.2f}" for limit in AUPRO_LIMITS)
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", *AUPRO_METRICS)
METRICS = IMAGE_METRICS + PIXEL_METRICS
UNKNOWN = -1  # label of an image of which nobody says whether it is anomalous
DRAWN_STEPS = 500  # a drawn curve has points wherever a rate passes a multiple of 1 / this


class Curve(NamedTuple):
    """Pixel-level rates at falling thresholds, thinned for drawing.

    Attributes:
      false_rate: fraction of defect-free pixels at or above the threshold.
      true_rate: fraction of defect pixels at or above it.
      overlap: mean fraction of a defect region at or above it.
    """

    false_rate: np.ndarray
    true_rate: np.ndarray
    overlap: np.ndarray


def evaluate(
    labels: Int[np.ndarray, " N"],
    image_scores: Float[np.ndarray, " N"],
    masks: Images | None,
    maps: Images,
    overlap: Images | None = None,
) -> dict[str, float]:
    """Returns every metric of ``METRICS`` as a fraction of 1, NaN where it is undefined.

    Args:
      labels: 0 for normal, 1 for anomalous and -1 for unknown, which is left out.
      image_scores: larger is more anomalous.
      masks: bool, true on defects; None without pixel annotations.
      maps: anomaly maps of the sizes of the masks.
      overlap: such maps that AUPRO uses where the method has other ones for it.

    Raises:
      UserError: shapes that do not fit, a score that is not finite, or a normal image whose mask
        marks a defect.
    """
    _check_finite(image_scores)  # of all images, whether their labels are known or not
    labels, image_scores, masks, maps, overlap = known(labels, image_scores, masks, maps, overlap)
    result = image_metrics(labels, image_scores)
    if masks is None:
        return result | dict.fromkeys(PIXEL_METRICS, math.nan)
    _check_masks(labels, masks)
    result |= pixel_metrics(masks, maps)
    if overlap is not None:
        regions = pixel_metrics(masks, overlap)
        result |= {name: regions[name] for name in AUPRO_METRICS}
    return result


def known(labels: np.ndarray, *per_image: Any) -> tuple[Any, ...]:
    """Returns labels, and arrays, lists or None beside them, of the images whose label is known."""
    labels = np.asarray(labels)
    if UNKNOWN not in labels:
        return (labels, *per_image)  # no copy of large maps
    rows = np.flatnonzero(labels != UNKNOWN)

    def of_rows(values: Any) -> Any:
        if isinstance(values, np.ndarray):
            return values[rows]
        return None if values is None else [values[row] for row in rows]

    return labels[rows], *map(of_rows, per_image)


def undefined(labels: np.ndarray, masks: Images | None) -> dict[str, str]:
    """Returns the metrics that these data cannot define, each with the reason in words."""
    labels, masks = known(labels, masks)
    reasons: dict[str, str] = {}
    missing = [name for name, value in (("good", 0), ("anomalous", 1)) if value not in labels]
    if missing:
        reason = f"the test set has no {' and no '.join(missing)} image"
        reasons |= dict.fromkeys(IMAGE_METRICS, reason)
    if masks is None:
        reasons |= dict.fromkeys(PIXEL_METRICS, "the test set has no masks")
    elif not any(map(np.any, masks)):
        reasons |= dict.fromkeys(PIXEL_METRICS, "no mask of the test set marks a defect")
    elif all(map(np.all, masks)):
        reasons |= dict.fromkeys(PIXEL_METRICS, "the masks leave no pixel free of defects")
    return reasons


def image_metrics(label: Int[np.ndarray, " N"], score: Float[np.ndarray, " N"]) -> dict[str, float]:
    """Area under the ROC curve and average precision over images, whose labels are 0 and 1.

    Raises:
      UserError: other shapes or labels, or a score that is not finite.
    """
    # scikit-learn takes seconds to import, and training need not wait for it.
    from sklearn.metrics import average_precision_score, roc_auc_score

    label, score = np.asarray(label), np.asarray(score)
    if label.ndim != 1 or label.shape != score.shape:
        raise UserError(
            f"labels {label.shape} and image scores {score.shape} differ in shape: "
            "give one label and one score per image"
        )
    if not np.isin(label, (0, 1)).all():
        raise UserError(f"labels hold {sorted(set(label.tolist()))}: use 0 for good and 1 for bad")
    _check_finite(score)
    if len(np.unique(label)) < 2:
        return dict.fromkeys(IMAGE_METRICS, math.nan)
    values = roc_auc_score(label, score), average_precision_score(label, score)
    return dict(zip(IMAGE_METRICS, map(float, values), strict=True))


def best_f1(label: Int[np.ndarray, " N"], score: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """Returns the best F1 of the decision ``score > threshold``, and such a threshold.

    It lies in the middle of the gap between two scores. Images of unknown label do not count; both
    other labels have to be there.
    """
    label, score = known(label, score)
    levels = np.unique(score)[::-1]
    flagged = score >= levels[:, None]  # (levels, N)
    f1 = 2 * np.sum(flagged & (label == 1), axis=1) / (np.sum(flagged, axis=1) + np.sum(label))
    best = int(np.argmax(f1))
    below = levels[best + 1] if best + 1 < len(levels) else levels[best] - 1.0
    return float(f1[best]), float((levels[best] + below) / 2)


def pixel_metrics(masks: Images, maps: Images) -> dict[str, float]:
    """Area under the ROC curve, average precision, best F1 and AUPRO over all pixels.

    AUPRO is the area under the mean overlap of the 8-connected defect regions, against the false
    positive rate over all defect-free pixels of the set, up to a limit and divided by that limit.
    Memory beside the arguments: 8 bytes per pixel, or 50 with maps that are not float32.

    Raises:
      UserError: other shapes or mask types, or a score that is not finite.
    """
    return pixel_analysis(masks, maps)[0]


def pixel_analysis(masks: Images, maps: Images) -> tuple[dict[str, float], Curve | None]:
    """Returns ``pixel_metrics`` and the curves behind them; None where they are undefined."""
    _check_maps(masks, maps)
    defects = int(sum(map(np.count_nonzero, masks)))
    normals = sum(mask.size for mask in masks) - defects
    if not defects or not normals:
        return dict.fromkeys(PIXEL_METRICS, math.nan), None
    pairs, precision, f1 = 0, 0.0, 0.0
    areas = np.zeros(len(AUPRO_LIMITS))
    drawn = []
    for false, true, overlap in aupro.sweep(masks, maps):
        found = true[1:] + false[1:]
        pairs += int(np.diff(false) @ (true[1:] + true[:-1]))  # twice the area: exact in integers
        precision += float(np.diff(true) @ (true[1:] / found))
        f1 = max(f1, float(np.max(2 * true[1:] / (found + defects), initial=0.0)))
        rate = false / normals
        areas += [aupro.area_below(rate, overlap, limit) for limit in AUPRO_LIMITS]
        drawn.append(_thin(rate, true / defects, overlap))
    values = [pairs / (2 * defects * normals), precision / defects, f1, *(areas / AUPRO_LIMITS)]
    metrics = dict(zip(PIXEL_METRICS, map(float, values), strict=True))
    return metrics, Curve(*np.concatenate(drawn, axis=1))


def _thin(*rates: np.ndarray) -> np.ndarray:
    """Stacks the points on either side of every grid value that one of the rising rates passes."""
    grid = np.arange(1, DRAWN_STEPS) / DRAWN_STEPS
    after = np.concatenate([np.searchsorted(rate, grid) for rate in rates])
    kept = np.concatenate([after - 1, after, [0, rates[0].size - 1]])
    return np.stack(rates)[:, np.unique(np.clip(kept, 0, rates[0].size - 1))]


def _check_finite(scores: Images) -> None:
    """Names the first image that has a score which is not finite."""
    for index, values in enumerate(scores):
        if not np.isfinite(values).all():
            raise UserError(
                f"image {index} of the test set has a score that is not finite: look at that "
                "image, or train again with a lower learning rate"
            )


def _check_maps(masks: Images, maps: Images) -> None:
    if len(masks) != len(maps):
        raise UserError(f"{len(masks)} masks but {len(maps)} anomaly maps: give one of each")
    for index, (mask, values) in enumerate(zip(masks, maps, strict=True)):
        if mask.ndim != 2 or mask.shape != values.shape:
            raise UserError(
                f"image {index} of the test set: its mask {mask.shape} and its anomaly map "
                f"{values.shape} differ in shape: resize both to the same (H, W)"
            )
        if mask.dtype != np.bool_:
            raise UserError(f"masks are {mask.dtype}: compare them with 0 first, to get bool")
    _check_finite(maps)


def _check_masks(labels: np.ndarray, masks: Images) -> None:
    if len(labels) != len(masks):
        raise UserError(f"{len(labels)} labels but {len(masks)} masks: give one of each per image")
    for index, (label, mask) in enumerate(zip(labels, masks, strict=True)):
        if not label and np.any(mask):
            raise UserError(
                f"image {index} of the test set is labelled good but its mask marks "
                f"{np.count_nonzero(mask)} pixels: correct the label or the mask"
            )
