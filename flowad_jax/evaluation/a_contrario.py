"""U-Flow's threshold without labels: where latents are farther out than chance would have them.

Tailanian, Pardo, Muse: "U-Flow", 2022, section 3.4. Under the flow's own model all latents are
independent standard normals. A position and channel is a candidate where its square is above a
quantile; a window with improbably many candidates is a detection. Its *number of false alarms* is
how many such windows an image of pure noise would have on average: an expectation under the model
and no promise, as latents of real images are neither independent nor quite normal. Even on noise it
holds away from the border alone, where windows are mirrored and have fewer samples than they count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats
from scipy.ndimage import uniform_filter

_CUBIC = -0.75  # of PyTorch's bicubic kernel


def log_nfa(
    latents: Sequence[Float[np.ndarray, "N h w C"]],
    image_size: tuple[int, int],
    window: int = 7,
    quantile: float = 0.5,
) -> Float[np.ndarray, "N H W"]:
    """Returns the decimal logarithm of the number of false alarms of every pixel.

    Args:
      latents: of all scales, fine to coarse.
      image_size: (H, W) of the result.
      window: side of the window at the finest scale, halved from scale to scale, at least 3.
      quantile: of the squares, above which a position and channel is a candidate.
    """
    total: Float[np.ndarray, "N H W"] = np.zeros((len(latents[0]), *image_size))
    for scale, z in enumerate(latents):
        half = max(int(window / 2**scale // 2), 1)
        rows, columns = (
            cubic_matrix(size, goal) for size, goal in zip(z.shape[1:3], image_size, strict=True)
        )
        total += rows @ log_tail(z, half, quantile) @ columns.T
    tests = sum(z.shape[1] * z.shape[2] for z in latents)
    return total + math.log10(tests)


def detections(
    found: Float[np.ndarray, "N H W"], expected: float = 1.0
) -> Bool[np.ndarray, "N H W"]:
    """Says where fewer than ``expected`` false alarms an image would be as extreme."""
    return found < math.log10(expected)


def log_tail(
    z: Float[np.ndarray, "N h w C"], half: int, quantile: float
) -> Float[np.ndarray, "N h w"]:
    """Decimal logarithm of the probability of more candidates in the window of each position.

    A window has ``(2 half + 1)^2`` positions, mirrored at the border, and counts the mean over
    channels, as if these were one.
    """
    side = 2 * half + 1
    candidates = (z**2 > stats.chi2(1).ppf(quantile)).mean(axis=-1)
    share = uniform_filter(candidates, (1, side, side), mode="mirror")
    # Means of ones and zeros: what rounding adds must not lift a count over a whole number.
    count = np.round(share * side**2, 9)
    return stats.binom.logsf(count, side**2, 1 - quantile) / math.log(10)


def cubic_matrix(size: int, target: int) -> Float[np.ndarray, "target size"]:
    """Weights (target, size) of cubic resizing in which the corner samples coincide.

    This is PyTorch's ``bicubic`` with ``align_corners=True``; beyond the ends samples repeat.
    """
    weights = np.zeros((target, size))
    for row, position in enumerate(np.linspace(0.0, size - 1.0, target)):
        left = min(math.floor(position), size - 1)
        for sample in range(left - 1, left + 3):
            weights[row, np.clip(sample, 0, size - 1)] += _kernel(abs(position - sample))
    return weights


def _kernel(distance: float) -> float:
    """Keys' cubic."""
    if distance <= 1:
        return ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    if distance < 2:
        return ((_CUBIC * distance - 5 * _CUBIC) * distance + 8 * _CUBIC) * distance - 4 * _CUBIC
    return 0.0
