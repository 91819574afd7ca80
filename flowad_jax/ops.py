"""Small numerical pieces that several systems share. Maps are channels last."""

import math
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

LOG_2PI = math.log(2.0 * math.pi)


def softplus(x: jax.Array, beta: float = 1.0) -> jax.Array:
    """PyTorch's softplus: ``log(1 + exp(beta x)) / beta``, the identity where ``beta x > 20``."""
    return jnp.where(beta * x > 20.0, x, jax.nn.softplus(beta * x) / beta)


def gaussian_log_prob_per_dim(z: jax.Array, log_det: jax.Array) -> jax.Array:
    """Log-likelihood of a flow under a standard normal, divided by the number of channels.

    Dividing by C keeps the values of scales with different widths comparable
    (CFLOW-AD, section 3.3).

    Args:
      z: (N, C) latent rows.
      log_det: (N,) log-determinants of the map that gave them.

    Returns:
      (N,) nats per dimension.
    """
    channels = z.shape[-1]
    log_prob = -0.5 * (channels * LOG_2PI + jnp.sum(z**2, axis=-1)) + log_det
    return log_prob / channels


def fibres(feature_map: jax.Array) -> jax.Array:
    """Reshapes a map (B, h, w, C) into its fibres (B*h*w, C), image-major, then row by row."""
    return feature_map.reshape(-1, feature_map.shape[-1])


def interpolation_matrix(size: int, target: int) -> np.ndarray:
    """Weights (target, size) of linear resizing in which the corner samples coincide.

    This is PyTorch's ``align_corners=True``; resizing a map is one product per axis.
    """
    return _linear_weights(np.linspace(0.0, size - 1.0, target), size)


def half_pixel_matrix(size: int, target: int) -> np.ndarray:
    """Weights (target, size) of linear resizing in which the outer edges coincide.

    This is PyTorch's ``align_corners=False``: sample i stands for the pixel whose middle is at
    ``i + 1/2``, and beyond the outermost middles their values continue. Shrinking does not smooth.
    """
    position = (np.arange(target) + 0.5) * (size / target) - 0.5
    return _linear_weights(np.clip(position, 0.0, size - 1.0), size)


def _linear_weights(position: np.ndarray, size: int) -> np.ndarray:
    """Weights (len(position), size) of the two samples around every position in 0 ... size - 1."""
    left = np.clip(np.floor(position).astype(int), 0, max(size - 2, 0))
    right = np.minimum(left + 1, size - 1)
    fraction = position - left
    weights = np.zeros((len(position), size))
    rows = np.arange(len(position))
    np.add.at(weights, (rows, left), 1.0 - fraction)
    np.add.at(weights, (rows, right), fraction)
    return weights


def pooling_matrix(size: int, target: int) -> np.ndarray:
    """Weights (target, size) of adaptive averaging: cell i is the mean of its window.

    As in PyTorch the window is ``floor(i * size / target)`` to ``ceil((i + 1) * size / target)``,
    so that neighbours overlap where the sizes do not divide.
    """
    weights = np.zeros((target, size))
    for cell in range(target):
        window = slice(cell * size // target, -(-(cell + 1) * size // target))
        weights[cell, window] = 1.0 / (window.stop - window.start)
    return weights


def adaptive_average_pool(x: jax.Array, target: Sequence[int]) -> jax.Array:
    """Averages maps (B, H, W, C) down to (B, h, w, C)."""
    return _resample(x, pooling_matrix, target)


def upsample(x: jax.Array, target: Sequence[int]) -> jax.Array:
    """Resizes maps (B, h, w, C) bilinearly to (B, H, W, C) with coinciding corners."""
    return _resample(x, interpolation_matrix, target)


def _resample(x: jax.Array, matrix: Callable, target: Sequence[int]) -> jax.Array:
    if x.shape[1:3] == tuple(target):
        return x
    rows, columns = (
        jnp.asarray(matrix(size, goal), x.dtype)
        for size, goal in zip(x.shape[1:3], target, strict=True)
    )
    return jnp.einsum("Hh,Ww,bhwc->bHWc", rows, columns, x, precision="highest")


def resize_align_corners(maps: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    """Resizes maps (N, h, w) to (N, H, W) bilinearly with coinciding corners, in their dtype."""
    return _resize(maps, interpolation_matrix, target)


def resize_half_pixel(maps: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    """Resizes maps (N, h, w) to (N, H, W) bilinearly with coinciding edges, in their dtype."""
    return _resize(maps, half_pixel_matrix, target)


def _resize(maps: np.ndarray, matrix: Callable, target: tuple[int, int]) -> np.ndarray:
    rows, columns = (
        matrix(size, goal).astype(maps.dtype)
        for size, goal in zip(maps.shape[1:], target, strict=True)
    )
    return rows @ maps @ columns.T


def mean_of_top(maps: Iterable[np.ndarray], share: float) -> np.ndarray:
    """Mean of the largest values of every map.

    Args:
      maps: N maps (H, W).
      share: of the values that count, rounded down to whole ones; at least 1 does, so that 0 is
        the maximum.

    Returns:
      (N,) in the dtype of the maps.
    """
    means = []
    for values in maps:
        count = max(1, int(share * values.size))
        means.append(np.partition(values, -count, axis=None)[-count:].mean())
    return np.array(means)
