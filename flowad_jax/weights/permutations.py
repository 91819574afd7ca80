"""How FrEIA stores the permutation that closes a block, and how we do: once, as indices if hard."""

import numpy as np

from flowad_jax.errors import UserError

TOLERANCE = 1e-3  # of products with rotations in single precision


def form(stored: np.ndarray, key: str) -> str:
    """How a permutation is stored: ``"indices"``, ``"one-hot"`` or else ``"rotation"``."""
    if stored.ndim == 1:
        return "indices"
    return "one-hot" if _is_one_hot(_matrix(stored, key)) else "rotation"


def from_freia(stored: np.ndarray, inverse: np.ndarray | None, key: str) -> np.ndarray:
    """Checks a stored permutation and returns ours.

    Args:
      stored: matrix (C, C) or (C, C, 1, 1), a rotation or one-hot, or whole numbers (C,).
      inverse: its inverse in the same form, where there is one.
      key: its name, for messages.

    Returns:
      int32 indices (C,) where it only reorders, else the matrix (C, C), a view.

    Raises:
      UserError: it permutes nothing, does not rotate, or the inverse is not its own.
    """
    strangers = UserError(f"'{key}' and the inverse beside it do not belong together")
    if stored.ndim == 1:
        order = _order(stored, key)
        if inverse is not None and not np.array_equal(inverse, np.argsort(stored)):
            raise strangers
        return order
    matrix = _matrix(stored, key)
    if inverse is not None:
        other = _matrix(inverse, f"{key}_inv")
        if other.shape != matrix.shape or not np.allclose(other, matrix.T, atol=TOLERANCE):
            raise strangers
    if _is_one_hot(matrix):
        return _order(matrix.argmax(1), key)
    # A rotation undoes its transpose; one random vector shows it for C^2 instead of C^3 products.
    vector = np.random.default_rng(0).standard_normal(len(matrix), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # not finite: not close either
        back = matrix.T @ (matrix @ vector)
    if not np.allclose(back, vector, atol=TOLERANCE):
        raise UserError(f"'{key}' is neither a rotation nor an order of channels")
    return matrix


def to_freia(permutation: np.ndarray, rank: int, indices: bool) -> tuple[np.ndarray, np.ndarray]:
    """(C,) indices or a (C, C) matrix, and the inverse, as FrEIA stores them.

    Args:
      permutation: ours.
      rank: axes of a row or map behind the batch: 1 or 3.
      indices: whether orders stay indices, as since June 2023, or become one-hot matrices.
    """
    if permutation.ndim == 1 and indices:
        order = permutation.astype(np.int64)
        return order, np.argsort(order)
    hard = permutation.ndim == 1
    matrix = np.eye(len(permutation), dtype=np.float32)[permutation] if hard else permutation
    matrix = matrix[(..., *(None,) * (rank - 1))]
    return matrix, matrix.swapaxes(0, 1)


def _is_one_hot(matrix: np.ndarray) -> bool:
    if matrix.shape[0] and np.count_nonzero(matrix[0]) != 1:  # most rotations end here
        return False
    return bool(np.all((matrix == 0) | (matrix == 1)) and np.all(matrix.sum(1) == 1))


def _matrix(stored: np.ndarray, key: str) -> np.ndarray:
    if stored.ndim not in (2, 4) or stored.shape != (*stored.shape[:1] * 2, 1, 1)[: stored.ndim]:
        raise UserError(f"'{key}' has shape {stored.shape}: it is no square matrix")
    return stored.reshape(stored.shape[:2])


def _order(stored: np.ndarray, key: str) -> np.ndarray:
    whole = np.issubdtype(stored.dtype, np.integer)
    if not whole or not np.array_equal(np.sort(stored), np.arange(len(stored))):
        raise UserError(f"'{key}' is no order of {len(stored)} channels")
    return stored.astype(np.int32)
