"""Whether images are still such as the normal ones that the detector was calibrated with.

A conformal test martingale: the Simple Jumper (Vovk, Petej, Nouretdinov, Ahlberg, Carlsson,
Gammerman: "Retrain or not retrain: conformal test martingales for change-point detection", COPA
2021). A gambler bets on the p-values of consecutive images being uneven. While the images are
exchangeable with the held-out normal ones, the p-values are independent and uniform, no bet pays on
average, and by Ville's inequality the capital ever reaches 1 / alpha with a probability of at most
alpha. Bets are bounded, so that a rare defect moves the capital little, and small changes add up.

These p-values are not those of the decisions, which all rank against the same held-out images and
so depend on each other: here every score is ranked among the held-out ones and all earlier images.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import UserError, printable

BETS, JUMP = (-1.0, 0.0, 1.0), 0.01  # the published ones
WINDOW, LOW = 100, 0.1  # images of the moving averages, and the p-values that count as low
LARGEST = 1e300  # of the statistic, so that JSON has it
LUMA = (0.299, 0.587, 0.114)
NO_NORMAL = "the detector has no held-out normal images to compare with"


class Alarm(NamedTuple):
    """The image at which the statistic reached its limit: its number from 1, and its name."""

    number: int
    name: str | None


class Drift:
    """The drift statistic of one stream of images, and moving averages beside it.

    A detector of several parts (cross-calibration) has a martingale for each, as each ranks among
    held-out images of its own; the statistic is the largest of them divided by their number.

    Attributes:
      alpha: largest probability of ever raising a false alarm.
      images: that were bet on.
      largest: value that the statistic has had.
      alarm: None, or where the statistic reached ``1 / alpha``; it stays until a new start.
      reason: why there is no statistic; None if there is one.
    """

    def __init__(self, normal: Sequence[Sequence[float] | np.ndarray], alpha: float = 0.01) -> None:
        """Starts with the scores of the held-out normal images of every part.

        Raises:
          UserError: alpha is no probability.
        """
        if not 0 < alpha < 1:
            raise UserError(f"drift_alpha={alpha}: choose a number between 0 and 1")
        self.alpha, self.images = alpha, 0
        self.alarm: Alarm | None = None
        self.reason = None if len(normal) and all(map(len, normal)) else NO_NORMAL
        self._parts = [_Martingale(part, seed) for seed, part in enumerate(normal)]
        self.largest = self.value or 0.0
        self._recent: deque[tuple[float | None, ...]] = deque(maxlen=WINDOW)
        self._first: list[tuple[float | None, ...]] = []

    @property
    def value(self) -> float | None:
        """The statistic, 1 / K at the start; None if there is a `reason`."""
        if self.reason:
            return None
        return min(LARGEST, max(part.capital for part in self._parts) / len(self._parts))

    def add(
        self,
        scores: Sequence[float],
        p_value: float | None = None,
        brightness: float | None = None,
        sharpness: float | None = None,
        name: str | None = None,
    ) -> bool:
        """Takes the next image; returns whether the alarm is raised by it.

        Args:
          scores: by every part; an image whose scores are not finite is not bet on.
          p_value: of its decision, for the share of low ones.
          brightness: see `look`.
          sharpness: see `look`.
          name: to find the image again.
        """
        seen = (None if p_value is None else float(p_value <= LOW), brightness, sharpness)
        self._recent.append(seen)
        if len(self._first) < WINDOW:
            self._first.append(seen)
        if self.reason or len(scores) != len(self._parts) or not np.isfinite(scores).all():
            return False
        self.images += 1
        for part, score in zip(self._parts, scores, strict=True):
            part.bet(float(score))
        value = self.value or 0.0
        self.largest = max(self.largest, value)
        if self.alarm or value < 1 / self.alpha:
            return False
        self.alarm = Alarm(self.images, name)
        return True

    def add_line(self, line: Mapping[str, Any]) -> bool:
        """The same with a line of ``predictions.jsonl``; those of unreadable images do nothing."""
        scores = line.get("scores") or [line.get("score")]
        if "error" in line or not all(isinstance(x, int | float) for x in scores):
            return False
        names = ("p_value", "brightness", "sharpness")
        figures = {name: line.get(name) for name in names}
        known = {name: x for name, x in figures.items() if isinstance(x, int | float)}
        return self.add(scores, name=str(line.get("path")), **known)

    def averages(self) -> dict[str, float | None]:
        """Share of low p-values, brightness and sharpness, over the last `WINDOW` images."""
        return _averages(self._recent)

    def record(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "test": "simple jumper",
            "alpha": self.alpha,
            "limit": 1 / self.alpha,
            "images": self.images,
            "value": self.value,
            "largest": self.largest,
            "alarm": self.alarm and self.alarm._asdict(),
            "window": WINDOW,
            "low_p_value": LOW,
            "last": self.averages(),
            "first": _averages(self._first),
            **({"reason": self.reason} if self.reason else {}),
        }

    def describe(self) -> str:
        """What a person reads, in one line."""
        if self.reason:
            return f"drift: not watched, {self.reason}"
        if self.alarm is None:
            largest = f"largest statistic {self.largest:.3g}, limit {1 / self.alpha:.4g}"
            return f"drift: no alarm in {self.images} images ({largest})"
        number, name = self.alarm
        at = f"image {number}, '{printable(name)}'" if name else f"image {number}"
        return (
            f"drift: ALARM at {at}: images are no longer like the held-out normal ones, so "
            "promises about false alarms do not hold; find out what changed, then calibrate again "
            f"(at most {100 * self.alpha:.3g} % of streams without drift ever raise this alarm)"
        )


class _Martingale:
    """The capital of one gambler."""

    def __init__(self, normal: Sequence[float] | np.ndarray, seed: int) -> None:
        self._scores = sorted(map(float, normal))
        self._rng = np.random.default_rng(seed)
        self._shares, self._log = [1 / len(BETS) for _ in BETS], 0.0

    @property
    def capital(self) -> float:
        """What became of 1."""
        return math.exp(min(self._log, math.log(LARGEST)))

    def bet(self, score: float) -> None:
        """Ranks a score among all before it, and bets on the p-value."""
        left, right = (f(self._scores, score) for f in (bisect.bisect_left, bisect.bisect_right))
        higher, equal = len(self._scores) - right, right - left + 1
        p_value = (higher + self._rng.random() * equal) / (len(self._scores) + 1)
        self._scores.insert(right, score)
        moved = ((1 - JUMP) * share + JUMP / len(BETS) for share in self._shares)
        capital = [x * (1 + bet * (p_value - 0.5)) for x, bet in zip(moved, BETS, strict=True)]
        # Only shares are kept, as the capital itself may grow beyond any float.
        total = sum(capital)
        self._log += math.log(total)
        self._shares = [x / total for x in capital]


def _averages(rows: Sequence[tuple[float | None, ...]] | deque[Any]) -> dict[str, float | None]:
    names = ("low_share", "brightness", "sharpness")
    columns = ([x for x in column if x is not None] for column in zip(*rows, strict=True))
    means = [round(sum(column) / len(column), 6) if column else None for column in columns]
    return dict(zip(names, means or [None] * len(names), strict=True))


def look(pixels: np.ndarray, place: Sequence[int] | None = None) -> tuple[float, float]:
    """Returns brightness and sharpness of an image on the canvas (h, w, 3) uint8.

    Brightness is the mean luma, from 0 to 1; sharpness the standard deviation of its Laplacian.

    Args:
      pixels: of the canvas.
      place: top, left, height, width of what shows the image; None for all.
    """
    if place is not None:
        top, left, height, width = place
        pixels = pixels[top : top + height, left : left + width]
    luma = pixels.astype(np.float32) @ np.array(LUMA, np.float32) / 255
    middle = luma[1:-1, 1:-1]
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    sharpness = float((around - 4 * middle).std()) if middle.size else 0.0
    return round(float(luma.mean()), 5), round(sharpness, 5)
