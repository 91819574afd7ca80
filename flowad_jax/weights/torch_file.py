"""Reads ``.pth``, ``.pt`` and ``.safetensors`` files without PyTorch.

Nothing in a file is ever executed. Beside the mapped file of n bytes a reader holds at most about
7 n bytes, plus 0.5 GB where a file is made to waste memory; `tests/weights/test_fuzz.py` tries to
get more. Tensors of the zip format are views of the mapped file and cost nothing.
"""

import contextlib
import itertools
import mmap
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flowad_jax import files
from flowad_jax.errors import UserError
from flowad_jax.weights import streaming
from flowad_jax.weights.foreign import shown
from flowad_jax.weights.torch_tensors import TensorReader
from flowad_jax.weights.unpickler import RefusedError

MAX_ZIP_ENTRIES = 200_000
MAX_ZIP_EXTRAS = 10_000_000  # bytes; zipfile takes a microsecond for four of them
STATE_DICT_KEYS = ("state_dict", "model", "model_state_dict")

# How files of PyTorch 0.2 to 1.5 start, and the version of their format.
_LEGACY = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b"."
_LEGACY_PROTOCOL = 1001


class WeightFileError(UserError):
    """A weight file is missing, damaged, or asks for more than tensors."""


def read(path: str | Path) -> Any:
    """Reads a checkpoint written by ``torch.save``, or a ``.safetensors`` file.

    Args:
      path: zip format (PyTorch 1.6 and later), legacy stream format (0.2 to 1.5), or
        ``.safetensors``, which is recognised by its suffix.

    Returns:
      Nested dict, list, tuple, str, bytes, int, float, bool and None with `numpy.ndarray` leaves,
      which may be read-only and share memory, and inert `foreign.Foreign` in the place of other
      objects. Tensors of bfloat16 have that type of `ml_dtypes`.

    Raises:
      WeightFileError: the file cannot be read, is damaged, or asks for a class or function of a
        package that `flowad_jax.weights.foreign` does not list; the message names both.
    """
    path = Path(path)
    with blame(path):
        if path.suffix == ".safetensors":
            return streaming.read_safetensors(path)[0]
        with files.open_regular(path) as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if data[:2] == b"PK":
                return _read_zip(file, data)
        if data[: len(_LEGACY)] == _LEGACY:
            return _read_legacy(data)
        if data[257:262] == b"ustar":
            raise RefusedError("is in PyTorch's tar format of before 2017; save it again")
        raise RefusedError(f"is no PyTorch weight file: it starts with {data[:16]!r}")


def state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the flat ``{name: tensor}`` dict of a checkpoint.

    It is the file's top level or the value under one of `STATE_DICT_KEYS`. Names are kept as they
    are, also with a ``module.`` in front.

    Raises:
      WeightFileError: as `read`; or there is no such dict, or more than one.
    """
    content = read(path)
    if _is_flat(content):
        return content
    if not isinstance(content, dict):
        raise WeightFileError(f"{path}: holds a {_kind(content)}; save model.state_dict() instead")
    found = [key for key in STATE_DICT_KEYS if _is_flat(content.get(key))]
    if len(found) == 1:
        return content[found[0]]
    first = itertools.islice(content.items(), 8)
    keys = ", ".join(f"{shown(key)}: {_kind(value)}" for key, value in first)
    count = "several state dicts" if found else "no flat state dict"
    raise WeightFileError(
        f"{path}: holds {count}; save model.state_dict() alone. "
        f"The first of {len(content)} keys: {keys or 'none'}"
    )


@contextlib.contextmanager
def blame(path: Path) -> Iterator[None]:
    """Turns whatever a bad file triggers inside the block into one `WeightFileError`."""
    try:
        if not path.is_file():
            raise RefusedError(
                "is not a file" if path.exists() else "does not exist; check the path"
            )
        if path.stat().st_size == 0:
            raise RefusedError("is empty; download it again")
        yield
    except UserError:
        raise
    except RefusedError as error:
        raise WeightFileError(f"{path}: {error}") from error
    except MemoryError as error:
        raise WeightFileError(f"{path}: does not fit into the memory of this machine") from error
    except OSError as error:
        raise WeightFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # A damaged file reaches several parsers, each with its own kinds of exceptions.
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise WeightFileError(
            f"{path}: is damaged or truncated, fetch it again ({what})"
        ) from error


def _is_flat(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(key, str) for key in value)
        and all(isinstance(leaf, np.ndarray) for leaf in value.values())
    )


def _kind(value: Any) -> str:
    return "tensor" if isinstance(value, np.ndarray) else type(value).__name__


def _read_zip(file: BinaryIO, data: mmap.mmap) -> Any:
    entries = _zip_entries(file, data)
    pickles = [name for name in entries if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) != 1:
        raise RefusedError("is a zip file but not one of PyTorch: it has no single data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise RefusedError("is a TorchScript program; save model.state_dict() instead")
    order = entries.get(f"{root}byteorder")
    if order is not None and _zip_content(data, order).tobytes() != b"little":
        raise RefusedError("is big-endian; save it again on a little-endian machine")
    storages: dict[str, np.ndarray] = {}

    def fetch(key: str, dtype: np.dtype, count: int, view: Any) -> np.ndarray:
        if key not in storages and f"{root}data/{key}" in entries:
            storages[key] = _zip_content(data, entries[f"{root}data/{key}"])
            progress.update(storages[key].nbytes)
        stored = storages.get(key)
        if stored is None or view is not None or stored.size != count * dtype.itemsize:
            raise RefusedError(f"lacks a storage {shown(key)} of {count} x {dtype}")
        return stored.view(dtype)

    _zip_content(data, entries[pickles[0]])  # checks it
    data.seek(_zip_start(data, entries[pickles[0]]))
    with streaming.bar(len(data), "read") as progress:
        return TensorReader(fetch, len(data)).load(data)


def _zip_entries(file: BinaryIO, data: mmap.mmap) -> dict[str, zipfile.ZipInfo]:
    extras = 0
    for count, header in enumerate(re.finditer(b"PK\x01\x02", data), start=1):
        extras += int.from_bytes(data[header.start() + 30 : header.start() + 32], "little")
        if count > MAX_ZIP_ENTRIES or extras > MAX_ZIP_EXTRAS:
            raise RefusedError(
                f"has over {MAX_ZIP_ENTRIES} zip entries or {MAX_ZIP_EXTRAS} bytes of extras"
            )
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    if sum(info.file_size for info in infos) > len(data):
        raise RefusedError("has zip entries that overlap or are larger than the file")
    return {info.filename: info for info in infos}


def _zip_content(data: mmap.mmap, entry: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of a zip entry, as a view of the mapped file."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise RefusedError(f"has the compressed or encrypted entry {shown(entry.filename)}")
    content = np.frombuffer(data, np.uint8)[_zip_start(data, entry) :][: entry.file_size]
    # PyTorch writes 0 where it was told not to compute checksums.
    if content.size != entry.file_size or entry.CRC not in (0, zlib.crc32(content.data)):
        raise RefusedError(
            f"is damaged: the checksum of {shown(entry.filename)} is wrong; fetch it again"
        )
    return content


def _zip_start(data: mmap.mmap, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry start: its local header has a name and extras of its own."""
    name_size, extra_size = struct.unpack_from("<26xHH", data, entry.header_offset)
    return entry.header_offset + 30 + name_size + extra_size


def _read_legacy(data: mmap.mmap) -> Any:
    """Reads five pickles and the bytes of every storage behind them."""
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
        if view is None:
            return storages[key]
        _, start, size = view  # PyTorch 0.4 and before has storages that are parts of others
        if type(start) is not int or type(size) is not int or not 0 <= start <= start + size:
            raise RefusedError("has an impossible view of a storage")
        return storages[key][start : start + size]

    reader = TensorReader(fetch, len(data))
    _, protocol, system, content, keys = [reader.load(data) for _ in range(5)]
    if protocol != _LEGACY_PROTOCOL:
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
    if hasattr(mmap, "MADV_DONTNEED"):  # lets the copied pages go: memory holds them once
        first = start - start % mmap.PAGESIZE
        data.madvise(mmap.MADV_DONTNEED, first, start + storage.nbytes - first)
