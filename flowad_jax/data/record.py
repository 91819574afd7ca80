"""What data sets return: records of images, and the protocol of their sources."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple, Protocol

import numpy as np

GOOD = "good"
UNKNOWN = "unknown"  # of images whose label nobody publishes


class Record(NamedTuple):
    """One image with all that is known about it, at its own resolution.

    Attributes:
      image: (H, W, 3) uint8; grey images have three equal channels.
      mask: (H, W) bool, true on defects; all false if the data set has no masks.
      label: 0 for normal, 1 for anomalous, -1 for unknown.
      kind: ``"good"``, the name of the defect's folder, or ``"unknown"``.
      path: the file, or a made-up name for images that have none.
    """

    image: np.ndarray
    mask: np.ndarray
    label: int
    kind: str
    path: str


class Source(Protocol):
    """One split of one category; knows labels without decoding, decodes a record on demand.

    Every module of `flowad_jax.data.sets` exports
    ``build(root, category, split, **options) -> Source``, ``categories(root) -> list[str]`` and
    its description, ``CARD``. `sources.build` has checked category and split by the card.
    ``source[i]`` is called from several threads at once.

    Attributes:
      labels: (N,) int32.
      kinds, paths: N strings each.
      has_masks: whether pixel metrics make sense.
    """

    labels: np.ndarray
    kinds: list[str]
    paths: list[str]
    has_masks: bool

    def __len__(self) -> int:
        """Number of records."""

    def __getitem__(self, index: int) -> Record:
        """Decodes one record."""


def count(source: Source) -> dict[str, Any]:
    """Counts for logs and results; an image of unknown label is neither normal nor anomalous."""
    return {
        "images": len(source),
        "good": int(np.sum(source.labels == 0)),
        "anomalous": int(np.sum(source.labels == 1)),
        "masks": source.has_masks,
        "kinds": dict(sorted(Counter(source.kinds).items())),
    }
