"""What the names in a PyTorch checkpoint mean: storages and the tensors that are views of them."""

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from flowad_jax.weights.unpickler import (
    MAX_NAME,
    Budget,
    Global,
    Machine,
    RefusedError,
    set_keys,
    shown,
)

MAX_EXPANSION = 8  # tensors may share or repeat their storage, up to this multiple of the file
MAX_DIMENSIONS = 32

_INTEGERS = ("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64")
_FLOATS = ("float16", "float32", "float64", "complex64", "complex128")
_SHORT_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
_DTYPES = {
    f"torch.{name}": np.dtype(getattr(ml_dtypes, name) if name in _SHORT_FLOATS else name)
    for name in _INTEGERS + _FLOATS + _SHORT_FLOATS
}
STORAGE_NAMES = {
    "Bool": "bool",
    "Byte": "uint8",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Float": "float32",
    "Double": "float64",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "Untyped": "uint8",
}
_STORAGES = {
    f"{module}.{prefix}Storage": _DTYPES[f"torch.{name}"]
    for prefix, name in STORAGE_NAMES.items()
    for module in ("torch", "torch.storage")
}
NAMES = _DTYPES.keys() | _STORAGES.keys()

Fetch = Callable[[str, np.dtype, int, Any], np.ndarray]


class TensorBuilder:
    """Builds the arrays of one file, all of them views of its storages.

    Args:
      fetch: ``(key, dtype, element count, view or None) -> 1-D array`` of a named storage.
      file_size: bytes; all tensors together may have `MAX_EXPANSION` times as many.
      machine: interprets the pickles.
    """

    def __init__(self, fetch: Fetch, file_size: int, machine: type[Machine] = Machine):
        self._fetch = fetch
        self._machine = machine
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
        """Interprets the pickle at the position of ``stream``, see `Machine.run`."""
        return self._machine(NAMES, self._calls, self._persistent, self._budget).run(stream)

    def _persistent(self, identity: Any) -> np.ndarray:
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

    def _ordered_dict(self, pairs: Any = ()) -> dict:
        if type(pairs) not in (list, tuple):
            raise RefusedError(f"builds a dict from {shown(pairs)}")
        self._budget.spend(len(pairs))
        built: dict[str | int, Any] = {}
        set_keys(built, pairs, self._budget)
        return built

    def _size(self, extents: Any) -> tuple:
        if type(extents) not in (list, tuple):
            raise RefusedError(f"builds a size from {shown(extents)}")
        self._budget.spend(len(extents))
        return tuple(extents)


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
