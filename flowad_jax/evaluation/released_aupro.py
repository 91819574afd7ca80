"""AUPRO as released programs compute it, for comparison with published figures and nothing else.

Thresholds lie at equal steps of the score, so that few may fall where it matters; false positive
rates are stretched from those that occur to the whole of the axis, instead of being cut at 0.3; and
some programs fill the holes of a region but divide by its area without them, so that an overlap may
exceed 1. The exact figure is that of ``aupro.py``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from flowad_jax.evaluation.aupro import EIGHT_CONNECTED, Images
from flowad_jax.evaluation.image_counts import above

LIMIT = 0.3


class Form(NamedTuple):
    """How a program does it: number of thresholds, and whether holes of regions are filled."""

    thresholds: int
    fills_holes: bool


FORMS = {"cflow": Form(1000, True), "sanflow": Form(1000, True), "msflow": Form(800, False)}


def released_aupro(masks: Images, maps: Images, form: Form) -> float:
    """Returns the area under the mean overlap, up to a false positive rate of 0.3.

    NaN where fewer than two thresholds have such a rate, or there are no regions.

    Args:
      masks: N times (H, W) bool, true on defects.
      maps: anomaly maps of the sizes of the masks.
      form: of a program.
    """
    highest = float(max(values.max() for values in maps))
    lowest = float(min(values.min() for values in maps))
    steps = np.arange(form.thresholds) * (highest - lowest) / form.thresholds
    falling = highest - steps
    false, overlap, regions, normal = np.zeros(len(falling)), np.zeros(len(falling)), 0, 0
    for mask, values in zip(masks, maps, strict=True):
        false += above(values[~mask], falling, or_at=False)
        normal += int(np.count_nonzero(~mask))
        labelled, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
        for number, place in enumerate(ndimage.find_objects(labelled), start=1):
            region = labelled[place] == number
            found = ndimage.binary_fill_holes(region) if form.fills_holes else region
            overlap += above(values[place][found], falling, or_at=False) / region.sum()
        regions += count
    rate = false / max(normal, 1)
    kept = rate <= LIMIT
    width = float(np.ptp(rate[kept])) if kept.any() else 0.0
    if not regions or width == 0:
        return math.nan
    stretched = (rate[kept] - rate[kept].min()) / width
    return float(np.trapezoid(overlap[kept] / regions, stretched))
