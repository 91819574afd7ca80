"""What a report is about: test images with their scores, and what was decided of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.types import Scores

# What came of a decision, by (label, alarm), and the group by which the page filters.
OUTCOMES = {
    (1, True): ("detected", "right"),
    (0, False): ("passed", "right"),
    (1, False): ("missed", "missed"),
    (0, True): ("false alarm", "false"),
    (-1, True): ("alarm", "unknown"),
    (-1, False): ("no alarm", "unknown"),
}
GROUPS = {"right": "Right", "missed": "Missed", "false": "False alarm", "unknown": "Unknown"}


class Findings(NamedTuple):
    """A test set and all that is known about its images.

    Attributes:
      records: N records, decoded on demand; has ``labels``, ``kinds`` and ``paths``.
      scores: of these records.
      masks: (N, H, W) bool at the size of the maps, or None without pixel annotations.
      p_values: (N,) of the image scores, or None.
      threshold: an image whose score is above it counts as anomalous; None decides nothing.
    """

    records: Any
    scores: Scores
    masks: np.ndarray | None
    p_values: np.ndarray | None
    threshold: float | None

    @property
    def labels(self) -> np.ndarray:
        """(N,) 0 for good, 1 for anomalous and -1 for unknown."""
        return np.asarray(self.records.labels)

    def groups(self, rows: Sequence[int] | None = None) -> dict[tuple[int, str], np.ndarray]:
        """Indices of all images, or of some, by label and kind; good ones first, unknown last."""
        found: dict[tuple[int, str], list[int]] = {}
        for index in range(len(self.labels)) if rows is None else rows:
            key = int(self.records.labels[index]), self.records.kinds[index]
            found.setdefault(key, []).append(index)
        ordered = sorted(found, key=lambda key: (key[0] < 0, key))
        return {key: np.array(found[key]) for key in ordered}

    def decision(self, index: int) -> tuple[str, str] | None:
        """What came of an image, and its group in the filter; None without a threshold."""
        if self.threshold is None:
            return None
        return OUTCOMES[int(self.labels[index]), bool(self.scores.image[index] > self.threshold)]


def is_finite(value: float | None) -> bool:
    """Whether there is a number at all, and a finite one."""
    return value is not None and math.isfinite(value)
