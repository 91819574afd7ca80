"""Where in an image the anomalies are: connected regions of its map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from skimage import measure


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


def find(anomaly_map: np.ndarray, threshold: float) -> tuple[Region, ...]:
    """Returns the 8-connected regions of a map (H, W) above a threshold, highest peak first."""
    above = anomaly_map > threshold
    if not above.any():  # most images; labels of a large one take time and memory
        return ()
    labels = measure.label(above, connectivity=2)
    found = []
    for part in measure.regionprops(labels, intensity_image=anomaly_map):
        top, left, bottom, right = part.bbox
        found.append(
            Region(left, top, right, bottom, int(part.num_pixels), float(part.intensity_max))
        )
    return tuple(sorted(found, key=lambda region: -region.peak))
