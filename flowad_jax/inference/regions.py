"""Where in an image the anomalies are: connected regions of its map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from skimage import measure

from flowad_jax.canvas import Box


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


def find(anomaly_map: np.ndarray, threshold: float, seen: Box | None = None) -> tuple[Region, ...]:
    """Returns the 8-connected regions of a map (H, W) above a threshold, highest peak first.

    Where only a part of the image was ``seen``, there are none outside.
    """
    above = anomaly_map > threshold
    if seen and seen[2:] != above.shape:
        inside = np.zeros_like(above)
        inside[seen.rows, seen.columns] = True
        above &= inside
    if not above.any():  # most images; labels of a large one take time and memory
        return ()
    parts = measure.regionprops(measure.label(above, connectivity=2), intensity_image=anomaly_map)
    found = [
        Region(left, top, right, bottom, int(part.num_pixels), float(part.intensity_max))
        for part in parts
        for top, left, bottom, right in (part.bbox,)
    ]
    return tuple(sorted(found, key=lambda region: -region.peak))


def least_area(setting: float | None, image: int, position: float) -> float:
    """Returns the area of the smallest region that is reported, in pixels of the image.

    Args:
      setting: ``eval.min_region``: pixels, or below 1 a share of the image; None for a position.
      image: pixels of the image.
      position: pixels of it that one position of the finest feature map covers.
    """
    if setting is None:
        return position
    return setting * image if setting < 1 else setting


def drop_small(
    regions: Sequence[Region], least: float, keep_highest: bool = False
) -> tuple[Region, ...]:
    """Returns the regions of at least so many pixels, or the highest alone if that is asked for."""
    large = tuple(region for region in regions if region.area >= least)
    return large or tuple(regions[: int(keep_highest)])
