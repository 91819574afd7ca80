"""Small numerical pieces that several methods share. Maps are channels last.

What makes scores of likelihood maps takes NumPy arrays, in whose float64 scores are computed, and
traced ones of JAX, so that an exported detector has the same formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import sparse
from scipy.ndimage import gaussian_filter1d

_DENSE = 2**20  # weights of an axis; as many on, nearly all of them 0, would take gigabytes
LOG_2PI = math.log(2.0 * math.pi)


def softplus(x: jax.Array, beta: float = 1.0) -> jax.Array:
    """PyTorch's softplus: ``log(1 + exp(beta x)) / beta``, the identity where ``beta x > 20``."""
    return jnp.where(beta * x > 20.0, x, jax.nn.softplus(beta * x) / beta)


def gaussian_log_prob_per_dim(
    z: Float[Array, "N C"], log_det: Float[Array, " N"]
) -> Float[Array, " N"]:
    """Log-likelihood of a flow under a standard normal, divided by the number of channels.

    Dividing by C keeps the values of scales with different widths comparable (CFLOW-AD, section
    3.3). ``log_det`` are the log-determinants of the map that gave the latent rows.
    """
    channels = z.shape[-1]
    log_prob = -0.5 * (channels * LOG_2PI + jnp.sum(z**2, axis=-1)) + log_det
    return log_prob / channels


def fibres(feature_map: Float[Array, "B h w C"]) -> Float[Array, "B*h*w C"]:
    """Reshapes a map into its fibres, image-major, then row by row."""
    return feature_map.reshape(-1, feature_map.shape[-1])


def interpolation_matrix(size: int, target: int) -> Float[np.ndarray, "target size"]:
    """Weights (target, size) of linear resizing in which the corner samples coincide.

    This is PyTorch's ``align_corners=True``; resizing a map is one product per axis.
    """
    return _align_corners(size, target).toarray()


def _linear_weights(position: np.ndarray, size: int) -> sparse.csr_array:
    """Weights (len(position), size) of the two samples around every position in 0 ... size - 1."""
    left = np.clip(np.floor(position).astype(int), 0, max(size - 2, 0))
    right = np.minimum(left + 1, size - 1)
    fraction = position - left
    rows = np.tile(np.arange(len(position)), 2)
    values = np.concatenate([1.0 - fraction, fraction])
    places = rows, np.concatenate([left, right])
    return sparse.coo_array((values, places), (len(position), size)).tocsr()


def _align_corners(size: int, target: int) -> sparse.csr_array:
    return _linear_weights(np.linspace(0.0, size - 1.0, target), size)


def _half_pixel(size: int, target: int) -> sparse.csr_array:
    """Weights (target, size) of linear resizing in which the outer edges coincide.

    This is PyTorch's ``align_corners=False``: sample i stands for the pixel whose middle is at
    ``i + 1/2``, and beyond the outermost middles their values continue. Shrinking does not smooth.
    """
    position = (np.arange(target) + 0.5) * (size / target) - 0.5
    return _linear_weights(np.clip(position, 0.0, size - 1.0), size)


def pooling_matrix(size: int, target: int) -> Float[np.ndarray, "target size"]:
    """Weights (target, size) of adaptive averaging: cell i is the mean of its window.

    As in PyTorch the window is ``floor(i * size / target)`` to ``ceil((i + 1) * size / target)``,
    so that neighbours overlap where the sizes do not divide.
    """
    weights = np.zeros((target, size))
    for cell in range(target):
        window = slice(cell * size // target, -(-(cell + 1) * size // target))
        weights[cell, window] = 1.0 / (window.stop - window.start)
    return weights


def adaptive_average_pool(
    x: Float[Array, "B H W C"], target: Sequence[int]
) -> Float[Array, "B h w C"]:
    """Averages maps down to the size ``target``."""
    return _resample(x, pooling_matrix, target)


def upsample(x: Float[Array, "B h w C"], target: Sequence[int]) -> Float[Array, "B H W C"]:
    """Resizes maps bilinearly with coinciding corners."""
    return _resample(x, interpolation_matrix, target)


def resize_bilinear(x: Float[Array, "B h w C"], target: Sequence[int]) -> Float[Array, "B H W C"]:
    """Resizes maps bilinearly with coinciding edges."""
    return _resample(x, lambda size, goal: _half_pixel(size, goal).toarray(), target)


def window_matrix(size: int, window: int) -> Float[np.ndarray, "size size"]:
    """Weights (size, size) of the mean of an odd window, with zeros beyond the ends."""
    distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    return (distance <= window // 2) / window


def _resample(x: jax.Array, matrix: Callable[..., Any], target: Sequence[int]) -> jax.Array:
    if x.shape[1:3] == tuple(target):
        return x
    rows, columns = (
        jnp.asarray(matrix(size, goal), x.dtype)
        for size, goal in zip(x.shape[1:3], target, strict=True)
    )
    return jnp.einsum("Hh,Ww,bhwc->bHWc", rows, columns, x, precision="highest")


def namespace(x: Any) -> Any:
    """``jax.numpy`` for what JAX traces, ``numpy`` for all else, its arrays included."""
    return jnp if isinstance(x, jax.core.Tracer) else np


def resize_align_corners(maps: Any, target: tuple[int, int]) -> Any:
    """Resizes maps (N, h, w) bilinearly with coinciding corners, in their dtype: (N, H, W)."""
    return _resize(maps, _align_corners, target)


def resize_half_pixel(maps: Any, target: tuple[int, int]) -> Any:
    """The same with coinciding edges."""
    return _resize(maps, _half_pixel, target)


def _resize(maps: Any, weights: Callable[[int, int], Any], target: tuple[int, int]) -> Any:
    rows, columns = (
        weights(size, goal).astype(maps.dtype)
        for size, goal in zip(maps.shape[1:], target, strict=True)
    )
    dense = max(math.prod(rows.shape), math.prod(columns.shape)) <= _DENSE
    if dense or isinstance(maps, jax.core.Tracer):
        return rows.toarray() @ maps @ columns.toarray().T
    wide = [rows @ (columns @ one.T).T for one in maps]
    return wide[0][None] if len(wide) == 1 else np.stack(wide)  # large ones come alone


def smoothed(maps: Any, deviation: float) -> Any:
    """Convolves maps (N, H, W) with a Gaussian, mirrored at the border, in their dtype.

    Its ``deviation`` is in pixels, and it ends after four of them; 0 changes nothing.
    """
    if not deviation:
        return maps
    rows, columns = (
        gaussian_filter1d(np.eye(size), deviation, axis=0, mode="mirror").astype(maps.dtype)
        for size in maps.shape[1:]
    )
    return rows @ maps @ columns.T


def mean_of_top(maps: Any, share: float) -> Any:
    """Mean (N,) of the largest values of every map (N, H, W), in their dtype.

    The ``share`` of the values that count is rounded down to whole ones; at least 1 does, so that
    0 is the maximum.
    """
    return namespace(maps).stack([top_values(values, share).mean() for values in maps])


def top_values(values: Any, share: float) -> Any:
    """Returns the values of a map (H, W) that `mean_of_top` counts, in any order."""
    count = max(1, int(share * values.size))
    if isinstance(values, jax.core.Tracer):
        return jax.lax.top_k(values.ravel(), count)[0]
    return np.partition(values, -count, axis=None)[-count:]
