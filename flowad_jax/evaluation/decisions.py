"""When an image is called anomalous, and in which words that is promised or estimated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from flowad_jax.evaluation import conformal, tail
from flowad_jax.lookup import check_choice

CALIBRATIONS = ("split", "cross", "cross_fast")
PROMISE, ESTIMATE, GIVEN = "promise", "estimate", "threshold"  # what a decision rests on


class Decisions:
    """Decides by the scores of normal images, or by a threshold that was given.

    Attributes:
      card: all about it as JSON values, empty where nothing can be decided. ``decided_by`` is
        ``"promise"``, ``"estimate"`` or ``"threshold"``, and ``meaning`` says so in a sentence;
        ``false_alarm_rate`` was asked for, ``promised`` is the rate that is guaranteed (None:
        none), ``interval`` that of `conformal.true_rate_interval`. An image is anomalous if its
        p-value is at most the ``level`` and, unless that is a promise, its score above ``image``.
        A region is where the map is above ``pixel``. ``images`` counts the normal ones, and
        ``calibration`` is one of `CALIBRATIONS`.
      counts: whether there are normal images, so that scores have p-values.
      reason: why nothing can be decided although there are images; None if it can.
    """

    def __init__(
        self,
        image: Sequence[Float[np.ndarray, " n"]],
        peak: Sequence[Float[np.ndarray, " n"]],
        rate: float,
        calibration: str = "split",
        threshold: float | None = None,
    ):
        """Takes what is known about normal images.

        Args:
          image: their scores, by the detector of each fold; of one fold unless the calibration is
            ``"cross"``.
          peak: the largest values of their maps.
          rate: false-alarm rate asked for.
          calibration: one of `CALIBRATIONS`.
          threshold: image score above which an image is anomalous instead.

        Raises:
          UserError: an argument is no rate or no calibration.
        """
        conformal.check_rate(rate)
        check_choice("eval.calibration", calibration, CALIBRATIONS)
        self._normal = image
        self.card: dict[str, Any] = {}
        self.reason: str | None = None
        count = sum(map(len, image))
        self.counts = count > 0
        if count or threshold is not None:
            self.card = _card(image, peak, rate, calibration, threshold)
        if count and self.card["decided_by"] == ESTIMATE and self.card["image"] is None:
            self.reason = (
                f"a single held-out image allows no estimate of {_percent(rate)} false alarms: "
                "hold out more images (data.holdout)"
            )

    def p_values(self, scores: Float[np.ndarray, "K N"]) -> Float[np.ndarray, " N"] | None:
        """Returns the p-values of images by their scores in every fold; None without images."""
        if not self.counts:
            return None
        return conformal.cross_p_values(scores, self._normal)

    def anomalous(
        self, scores: Float[np.ndarray, " N"], p_values: Float[np.ndarray, " N"] | None
    ) -> Bool[np.ndarray, " N"] | None:
        """Returns what is called anomalous; None where nothing can be decided."""
        card = self.card
        if not card or self.reason:
            return None
        if card["decided_by"] == GIVEN:
            return np.asarray(scores) > card["image"]
        assert p_values is not None
        low = np.asarray(p_values) <= card["level"]
        return low & (scores > card["image"]) if card["decided_by"] == ESTIMATE else low


def _card(
    image: Sequence[np.ndarray],
    peak: Sequence[np.ndarray],
    rate: float,
    calibration: str,
    given: float | None,
) -> dict[str, Any]:
    """See `Decisions.card`."""
    folds, (pooled, peaks) = len(image), (np.concatenate([*x, []]) for x in (image, peak))
    count = len(pooled)
    level = conformal.promised(count, rate)
    estimates = rate < level
    split, limit = calibration == "split", tail.threshold if estimates else conformal.threshold
    promised = level if split else conformal.cross_bound(count, folds, level)
    by = ESTIMATE if estimates or calibration == "cross_fast" else PROMISE
    values: dict[str, Any] = {
        "false_alarm_rate": rate,
        "calibration": calibration,
        "images": count,
        "level": level,
        "decided_by": by if given is None else GIVEN,
        "promised": None if given is not None or calibration == "cross_fast" else promised,
        "image": _finite(limit(pooled, rate)) if given is None else float(given),
        "pixel": _finite(limit(peaks, rate)),
        "interval": None,
    }
    if values["decided_by"] == PROMISE:
        if split:
            values["interval"] = list(conformal.true_rate_interval(count, level))
        else:  # ranked fold by fold, there is no one score
            values["image"] = None
    return {**values, "meaning": _meaning(values, folds)}


def _meaning(card: dict[str, Any], folds: int) -> str:
    rate, count, kind = _percent(card["false_alarm_rate"]), card["images"], card["calibration"]
    images = f"{count} held-out image" + "s" * (count != 1)
    if card["decided_by"] == GIVEN:
        return f"threshold {card['image']:.6g}, as given: nothing is said about false alarms"
    if kind == "cross_fast":
        return (
            f"threshold for about {rate} false alarms: an estimate, not a promise, from {count} "
            "images that were each scored by a detector that had not seen them"
        )
    if card["decided_by"] == PROMISE:
        if kind == "split":
            return f"threshold for at most {rate} false alarms: a promise by {images}"
        return (
            f"decided for about {rate} false alarms by ranks among {images} in {folds} folds: "
            f"guaranteed are at most {_percent(card['promised'])}"
        )
    return (
        f"threshold for about {rate} false alarms: an estimate from the tail of {images}, which "
        f"promise at most {_percent(card['promised'])}"
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"
