"""The legacy format of PyTorch 0.2 to 1.5: five pickles, then the bytes of every storage."""

import mmap
import struct
from typing import Any

import numpy as np

from flowad_jax.weights import streaming
from flowad_jax.weights.torch_objects import TensorBuilder
from flowad_jax.weights.unpickler import Machine, RefusedError, shown

_START = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b"."
_PROTOCOL = 1001


def starts(data: mmap.mmap) -> bool:
    """Whether a file starts as one of this format does."""
    return data[: len(_START)] == _START


def read(data: mmap.mmap, machine: type[Machine]) -> Any:
    """Returns what a file holds, see `torch_file.read`."""
    storages: dict[str, np.ndarray] = {}
    free = len(data)

    def fetch(key: str, dtype: np.dtype, count: int, view: Any) -> np.ndarray:
        nonlocal free
        if key not in storages:
            free -= count * dtype.itemsize
            if free < 0:
                raise RefusedError(f"is truncated: storage {shown(key)} does not fit into it")
            storages[key] = np.empty(count, dtype)
        if (storages[key].size, storages[key].dtype) != (count, dtype):
            raise RefusedError(f"has two types of storage {shown(key)}")
        return storages[key] if view is None else _part(storages[key], view)

    builder = TensorBuilder(fetch, len(data), machine)
    _, protocol, system, content, keys = [builder.load(data) for _ in range(5)]
    if protocol != _PROTOCOL:
        raise RefusedError(f"has the unknown format version {shown(protocol)}")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedError("is big-endian; save it again on a little-endian machine")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise RefusedError("lacks the list of its storages")
    if len(keys) != len(storages) or set(keys) != storages.keys():
        raise RefusedError("does not list the storages that its tensors use")
    with streaming.bar(len(data), "read") as progress:
        for key in keys:
            _fill(storages[key], data)
            progress.update(storages[key].nbytes)
    return content


def _part(storage: np.ndarray, view: Any) -> np.ndarray:
    """The part of a storage that another one of PyTorch 0.4 and before is a view of."""
    _, start, count = view
    if type(start) is not int or type(count) is not int or not 0 <= start <= start + count:
        raise RefusedError("has an impossible view of a storage")
    return storage[start : start + count]


def _fill(storage: np.ndarray, data: mmap.mmap) -> None:
    """Copies the next ``element count, elements`` of a legacy file into a storage."""
    (count,) = struct.unpack("<q", data.read(8))
    if count != storage.size:
        raise RefusedError(f"has {count} elements in a storage of {storage.size}")
    start = data.tell()
    content = np.frombuffer(data, np.uint8)[start : start + storage.nbytes]
    if content.size != storage.nbytes:
        raise RefusedError("is truncated; fetch it again")
    storage.view(np.uint8)[:] = content
    data.seek(start + storage.nbytes)
    _forget(data, start, storage.nbytes)


def _forget(data: mmap.mmap, start: int, count: int) -> None:
    """Lets the pages of a mapped file go that have been copied, so that memory holds them once."""
    first = start - start % mmap.PAGESIZE
    if hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED, first, start + count - first)
