"""Seamless cloning: a patch takes on the tone of its surroundings (Pérez et al., SIGGRAPH 2003).

OpenCV solves the Poisson equation; this module decides where the patch goes.
"""

from __future__ import annotations

import cv2
import numpy as np

LEAST_SIDE = 3  # OpenCV fails on smaller regions


def seamless_clone(
    patch: np.ndarray,
    target: np.ndarray,
    top: int,
    left: int,
    mask: np.ndarray | None = None,
    *,
    mixed: bool = False,
    legacy_shift: bool = False,
) -> np.ndarray | None:
    """Blends a patch into an image by its gradients.

    The outermost frame of the patch is left out, and OpenCV ignores the gradients of three more
    pixels along the border of the mask. The solution is cut to [0, 255] and truncated.

    Args:
      patch: (h, w, 3) uint8.
      target: (H, W, 3) uint8.
      top: row of the target at which the patch begins.
      left: column of the target at which the patch begins; all of the patch must fit.
      mask: (h, w) bool, what to blend; all of the patch by default.
      mixed: keep the gradient of the target where it is the stronger one, so that its texture
        shows through.
      legacy_shift: patches of odd width land one column to the right, as they do in the
        reference implementations of NSA and SSNF.

    Returns:
      (H, W, 3) uint8, or None if too little is left of the patch to be blended.
    """
    inside = np.zeros(patch.shape[:2], np.uint8)
    inside[1:-1, 1:-1] = 255 if mask is None else np.where(mask[1:-1, 1:-1], 255, 0)
    x, y, width, height = cv2.boundingRect(inside)
    if min(width, height) < LEAST_SIDE:
        return None
    top, left = top + y, left + x + (legacy_shift and patch.shape[1] % 2)
    region = (slice(top, top + height), slice(left, left + width))
    # Nothing outside of the region takes part, so only the region is handed over.
    surface = np.ascontiguousarray(target[region])
    mode = cv2.MIXED_CLONE if mixed else cv2.NORMAL_CLONE
    try:
        blended = cv2.seamlessClone(patch, surface, inside, (width // 2, height // 2), mode)
    except cv2.error:
        return None
    result = target.copy()
    result[region] = blended
    return result
