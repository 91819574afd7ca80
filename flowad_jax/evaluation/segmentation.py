"""What a detector's own threshold makes of pixels: SegF1, the metric of MVTec AD 2.

Heckler-Kram et al., "The MVTec AD 2 Dataset", arXiv 2503.21622 (2025). The threshold was fixed
without the test set; the best one for the test set is ``pixel_f1_max`` of ``metrics.py``.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from flowad_jax.evaluation.aupro import Images


def seg_f1_parts(
    masks: Images, maps: Images, threshold: float
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Returns 2 TP and 2 TP + FP + FN of every image; SegF1 is the ratio of their sums.

    Args:
      masks: N times (H, W) bool, true on defects.
      maps: anomaly maps of the sizes of the masks; a pixel is called anomalous above the threshold.
      threshold: of the detector, in units of the maps.
    """
    parts, wholes = [], []
    for mask, values in zip(masks, maps, strict=True):
        above = values > threshold
        parts.append(2 * np.count_nonzero(above & mask))
        wholes.append(np.count_nonzero(above) + np.count_nonzero(mask))
    return np.array(parts, float), np.array(wholes, float)
