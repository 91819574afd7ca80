"""What the names in a PyTorch checkpoint mean: storages and the tensors that are views of them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from flowad_jax.weights.foreign import Global, shown
from flowad_jax.weights.streaming import DTYPES
from flowad_jax.weights.unpickler import MAX_NAME, Budget, RefusedError, interpret, set_keys

MAX_EXPANSION = 8  # tensors may share or repeat their storage, up to this multiple of the file
MAX_DIMENSIONS = 32

_DTYPES = {f"torch.{name}": np.dtype(name) for name in DTYPES}
_STORAGES = {
    f"{module}.{prefix}Storage": np.dtype(name)
    for name, prefix in [
        *((name, names.torch) for name, names in DTYPES.items()),
        ("u1", "Untyped"),
    ]
    for module in ("torch", "torch.storage")
    if prefix
}

Fetch = Callable[[str, np.dtype, int, Any], np.ndarray]


class TensorReader:
    """Reads the pickles of one file, whose arrays are views of its storages."""

    def __init__(self, fetch: Fetch, file_size: int):
        """``fetch(key, dtype, element count, view or None)`` returns a storage as 1-D array."""
        self._fetch = fetch
        self._bytes_left = MAX_EXPANSION * max(file_size, 2**17)
        self._budget = Budget()
        self._calls: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": self._ordered_dict,
            "torch.Size": self._size,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_tensor_v3": self._typed_tensor,
            "torch._utils._rebuild_parameter": lambda data, requires_grad, hooks: data,
        }

    def load(self, stream: Any) -> Any:
        """Interprets the pickle at the position of ``stream``, see `interpret`."""
        return interpret(stream, self._calls, self._storage, self._budget)

    def _storage(self, identity: Any) -> np.ndarray:
        """Returns the storage that ``("storage", type, key, device, count[, view])`` names."""
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
            raise RefusedError(f"asks for the persistent object {shown(identity)}")
        _, kind, key, _, count, *view = identity
        if not isinstance(kind, Global) or kind not in _STORAGES:
            raise RefusedError(f"asks for a storage of type {shown(kind)}")
        is_key = type(key) is str and len(key) <= MAX_NAME
        if not is_key or type(count) is not int or not 0 <= count < 2**63:
            raise RefusedError(f"asks for storage {shown(key)} of {shown(count)} elements")
        return self._fetch(key, _STORAGES[kind], count, view[0] if view else None)

    def _tensor(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any = False,
        hooks: Any = None,
        flags: Any = None,
    ) -> np.ndarray:
        del requires_grad, hooks
        if not isinstance(storage, np.ndarray) or storage.ndim != 1:
            raise RefusedError(f"has a tensor whose storage is {shown(storage)}")
        if flags:
            raise RefusedError("has a tensor stored as a lazy conjugate or negative")
        _check_bounds(storage.size, offset, size, stride)
        self._budget.spend(len(size))
        width = storage.dtype.itemsize
        self._bytes_left -= math.prod(size) * width
        if self._bytes_left < 0:
            raise RefusedError(f"has tensors of over {MAX_EXPANSION} times the size of the file")
        if 0 in size:
            return np.empty(size, storage.dtype)
        steps = tuple(step * width for step in stride)
        return np.ndarray(size, storage.dtype, storage.view(np.uint8), offset * width, steps)

    def _typed_tensor(self, storage: Any, *arguments: Any) -> np.ndarray:
        offset, size, stride, requires_grad, hooks, dtype, *flags = arguments
        if not isinstance(dtype, Global) or dtype not in _DTYPES:
            raise RefusedError(f"has a tensor of type {shown(dtype)}")
        if not isinstance(storage, np.ndarray):
            raise RefusedError(f"has a tensor whose storage is {shown(storage)}")
        typed = storage.view(_DTYPES[dtype])
        return self._tensor(typed, offset, size, stride, requires_grad, hooks, *flags)

    def _ordered_dict(self, pairs: Any = ()) -> dict[Any, Any]:
        built: dict[Any, Any] = {}
        set_keys(built, self._charged(pairs), self._budget)
        return built

    def _size(self, extents: Any) -> tuple[Any, ...]:
        return tuple(self._charged(extents))

    def _charged(self, items: Any) -> Any:
        """Items that a call copies, each of which costs an operation."""
        if type(items) not in (list, tuple):
            raise RefusedError(f"builds a dict or size from {shown(items)}")
        self._budget.spend(len(items))
        return items


def _check_bounds(count: int, offset: Any, size: Any, stride: Any) -> None:
    """Refuses a view that would leave its storage of ``count`` elements."""
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride):
        raise RefusedError("has a tensor whose size and stride do not agree")
    numbers = (offset, *size, *stride)
    if len(size) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        raise RefusedError("has a tensor with an impossible size, stride or offset")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if offset > count or (0 not in size and last >= count):
        raise RefusedError(f"has a tensor that reaches beyond its storage of {count} elements")
