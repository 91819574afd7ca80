"""Images with their scores, and what was decided about each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.types import Scores

# What a decision means, by (label, alarm), and the group by which the page filters.
OUTCOMES = {
    (1, True): ("detected", "right"),
    (0, False): ("passed", "right"),
    (1, False): ("missed", "missed"),
    (0, True): ("false alarm", "false"),
    (-1, True): ("alarm", "unknown"),
    (-1, False): ("no alarm", "unknown"),
}
GROUPS = {"right": "Right", "missed": "Missed", "false": "False alarm", "unknown": "Unknown"}

SYNTHETIC = "synthetic_"  # what names of metrics begin with that were measured on made-up defects
SYNTHETIC_NOTE = (
    "The test images are synthetic: normal images and the same with pasted anomalies. How well "
    "real defects are found may be quite different."
)
NORMAL = ("held-out", "training")  # images that set thresholds, or that were learned from
WITHOUT_METRICS = {  # by where scored images come from
    "held-out": "no test images: no metrics",
    "training": "no test images: no metrics",
    "unlabelled": "no labels: no metrics",
}


class Limits(NamedTuple):
    """Ends of the common colour scale, in its middle the end of what is usual, and for whom."""

    low: float
    usual: float
    high: float
    pixels: str = "good pixels"


class ScoredImages(NamedTuple):
    """A set of images and all that is known about them.

    Attributes:
      records: N records, decoded on demand; has ``labels``, ``kinds`` and ``paths``.
      scores: of these records.
      masks: (N, H, W) bool at the size of the maps, or None without pixel annotations.
      p_values: (N,) of the image scores, or None.
      threshold: an image whose score is above it counts as anomalous; None if there is no such.
      origin: where they come from: a ``"test"`` set; ``"synthetic"`` ones; ``"unlabelled"`` ones;
        or normal ones that were ``"held-out"`` or are for ``"training"``. About these nothing is
        decided, as they set the threshold, or were learned.
      flagged: (N,) bool, whether an image counts as anomalous, where no threshold says it.
    """

    records: Any
    scores: Scores
    masks: np.ndarray | None
    p_values: np.ndarray | None
    threshold: float | None
    origin: str = "test"
    flagged: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """(N,) 0 for normal, 1 for anomalous and -1 for unknown."""
        return np.asarray(self.records.labels)

    @property
    def alarms(self) -> np.ndarray | None:
        """(N,) bool, whether an image counts as anomalous; None where nothing is decided."""
        if self.flagged is not None or self.threshold is None:
            return self.flagged
        return self.scores.image > self.threshold

    def groups(self, rows: Sequence[int] | None = None) -> dict[tuple[int, str], np.ndarray]:
        """Indices of all images, or of some, by label and kind; normal ones first, unknown last."""
        found: dict[tuple[int, str], list[int]] = {}
        for index in range(len(self.labels)) if rows is None else rows:
            key = int(self.records.labels[index]), self.records.kinds[index]
            found.setdefault(key, []).append(index)
        ordered = sorted(found, key=lambda key: (key[0] < 0, key))
        return {key: np.array(found[key]) for key in ordered}

    def decision(self, index: int) -> tuple[str, str] | None:
        """What the decision about an image means, and its group; None where nothing is decided."""
        if self.alarms is None or self.origin in NORMAL:
            return None
        return OUTCOMES[int(self.labels[index]), bool(self.alarms[index])]
