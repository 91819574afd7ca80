"""Where in an image the anomalies are: connected regions of its map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .canvas import Box


class Region(NamedTuple):
    """A connected part of an image whose map exceeds the pixel threshold.

    Attributes:
      left, top, right, bottom: box in pixels of the image; right and bottom are exclusive.
      area: pixels of the part itself.
      peak: largest value of the map in it.
    """

    left: int
    top: int
    right: int
    bottom: int
    area: int
    peak: float


def find(
    values: np.ndarray, threshold: float, seen: Box, least: float, keep_highest: bool
) -> tuple[Region, ...]:
    """Returns the 8-connected regions of a map (H, W) above a threshold, highest peak first.

    Those of less than ``least`` pixels are left out, but the highest if there is no other and
    ``keep_highest``. There are none outside of what was ``seen``.
    """
    above = np.zeros((len(values), values.shape[1] + 2), bool)  # a gap between rows
    above[:, 1:-1][seen.slices] = values[seen.slices] > threshold
    starts, ends = np.flatnonzero(np.diff(above.ravel())).reshape(-1, 2).T + 1
    if not len(starts):
        return ()
    part = connect(starts, ends, above.shape[1])
    order = np.argsort(part, kind="stable")
    first = np.flatnonzero(np.diff(part[order], prepend=-1))  # of each part, among its runs
    lengths = ends - starts
    peaks = np.maximum.reduceat(values[above[:, 1:-1]], np.cumsum(lengths) - lengths)
    (rows, left), right = np.divmod(starts, above.shape[1]), ends % above.shape[1]
    measured = (
        np.minimum.reduceat(left[order], first) - 1,
        np.minimum.reduceat(rows[order], first),
        np.maximum.reduceat(right[order], first) - 1,
        np.maximum.reduceat(rows[order], first) + 1,
        np.add.reduceat(lengths[order], first),
        np.maximum.reduceat(peaks[order], first),
    )
    highest = np.argsort(-measured[5], kind="stable")
    large = highest[measured[4][highest] >= least]
    chosen = large if len(large) else highest[: int(keep_highest)]
    return tuple(map(Region, *(column[chosen].tolist() for column in measured)))


def connect(starts: np.ndarray, ends: np.ndarray, width: int) -> np.ndarray:
    """Numbers the runs of pixels of an image by the part that each belongs to.

    Runs are given by where each starts and ends in the pixels of an image, row by row, whose rows
    of a ``width`` have gaps between them. A part has the number of its first run.
    """
    # The runs of the next row that touch one, also across a corner, follow each other.
    first = np.searchsorted(ends, starts + width)
    count = np.searchsorted(starts, ends + width, side="right") - first
    upper = np.repeat(np.arange(len(starts)), count)
    lower = np.arange(len(upper)) + np.repeat(first - (np.cumsum(count) - count), count)
    part = np.arange(len(starts))
    while (apart := part[upper] != part[lower]).any():
        upper, lower = upper[apart], lower[apart]
        smaller = np.minimum(part[upper], part[lower])
        np.minimum.at(part, part[upper], smaller)
        np.minimum.at(part, part[lower], smaller)
        while (shorter := part[part]).tobytes() != part.tobytes():
            part = shorter
    return part
