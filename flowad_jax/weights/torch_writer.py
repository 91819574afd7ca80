"""Writes what ``torch.load`` and safetensors' loaders read, without PyTorch.

The zip format of PyTorch 1.6 and later: a pickle that names storages, and every storage as an
entry of its own, uncompressed, at a multiple of 64 bytes, so that ``torch.load(mmap=True)`` can
map it. The same content gives the same bytes.
"""

import math
import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flowad_jax import files
from flowad_jax.errors import UserError
from flowad_jax.weights import streaming
from flowad_jax.weights.torch_objects import STORAGE_NAMES

SUFFIXES = (".pth", ".pt", ".safetensors")
ALIGNMENT = 64

_ROOT = "archive"
_STORAGES = {name: f"{prefix}Storage" for prefix, name in STORAGE_NAMES.items()}
_STORAGES["uint8"] = "ByteStorage"
_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
_FILLER = 0x4246  # "FB", the identity that PyTorch gives to what it aligns entries with
_ZIP64_FIELD = 20  # bytes that zipfile adds in front of large entries


def write(path: str | Path, content: Any) -> None:
    """Writes a checkpoint, completely or not at all.

    Args:
      path: ends in ``.pth`` or ``.pt``, or in ``.safetensors``; an existing file is replaced.
      content: ``{name: array}``; for ``.pth`` also nested dict, list and tuple whose leaves are
        arrays, str, int, float, bool or None. An array that occurs twice is written once.

    Raises:
      UserError: another suffix, content that the format does not hold, or the file cannot be
        written; what was there stays.
    """
    path = Path(path)
    if check_suffix(path) == ".safetensors":
        _check_flat(path, content)
        with files.replacing(path) as part:
            streaming.write_safetensors(part, content, {"format": "pt"})
        return
    pickler = _Pickler()
    program = b"\x80\x02" + pickler.value("", content) + b"."
    with files.replacing(path) as part:
        _write_zip(part, program, pickler.storages)


def check_suffix(path: Path) -> str:
    """Returns the suffix of a file for PyTorch.

    Raises:
      UserError: it is not one of `SUFFIXES`.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: a file for PyTorch ends in {', '.join(SUFFIXES)}")
    return path.suffix


def _check_flat(path: Path, content: Any) -> None:
    items = content.items() if isinstance(content, Mapping) else [("the content", content)]
    for name, value in items:
        if type(name) is not str or not isinstance(value, np.ndarray):
            kind = type(value).__name__
            raise UserError(
                f"{path}: .safetensors holds named tensors only, and '{name}' is a {kind}; "
                "write a .pth file"
            )


class _Pickler:
    """Writes operations of pickle protocol 2 and collects the storages that they name.

    Python's pickler would have to import PyTorch to name what is in it.
    """

    def __init__(self) -> None:
        self.storages: list[np.ndarray] = []
        self._keys: dict[int, int] = {}

    def value(self, name: str, value: Any) -> bytes:
        """The operations that put a value on the stack; ``name`` is for messages."""
        if isinstance(value, np.ndarray):
            return self._tensor(name, value)
        if isinstance(value, Mapping):
            items = (
                _plain(name, key) + self.value(f"{name}.{key}".lstrip("."), item)
                for key, item in value.items()
            )
            return _ORDERED_DICT + b"(" + b"".join(items) + b"u"
        if type(value) in (list, tuple):
            parts = (self.value(f"{name}[{i}]", item) for i, item in enumerate(value))
            start, end = (b"](", b"e") if type(value) is list else (b"(", b"t")
            return start + b"".join(parts) + end
        return _plain(name, value)

    def _tensor(self, name: str, tensor: np.ndarray) -> bytes:
        kind = streaming.named_dtype(name, tensor, _STORAGES)
        key = self._keys.setdefault(id(tensor), len(self.storages))
        if key == len(self.storages):
            self.storages.append(tensor)
        storage = b"".join(
            [
                *(b"(", _plain(name, "storage"), f"ctorch\n{kind}\n".encode()),
                *(_plain(name, str(key)), _plain(name, "cpu"), _plain(name, tensor.size), b"tQ"),
            ]
        )
        steps = [math.prod(tensor.shape[axis + 1 :]) for axis in range(tensor.ndim)]
        view = _plain(name, 0) + _numbers(tensor.shape) + _numbers(steps)
        return _REBUILD + b"(" + storage + view + b"\x89" + _ORDERED_DICT + b"tR"


def _plain(name: str, value: Any) -> bytes:
    """A value that Python pickles without naming a class."""
    if value is not None and type(value) not in (str, int, float, bool):
        raise UserError(
            f"'{name}' is a {type(value).__name__}, which a checkpoint does not hold; make it an "
            "array, a number or text"
        )
    return pickle.dumps(value, 2)[2:-1]  # without the protocol in front and the end


def _numbers(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(_plain("", int(value)) for value in values) + b"t"


def _write_zip(path: Path, program: bytes, storages: list[np.ndarray]) -> None:
    total = sum(storage.nbytes for storage in storages)
    # PyTorch takes the folder of the first entry for that of all others.
    texts = {"data.pkl": program, "byteorder": b"little", "version": b"3\n"}
    with (
        open(path, "wb") as file,
        zipfile.ZipFile(file, "w") as archive,
        streaming.bar(total, "write") as progress,
    ):
        for name, text in texts.items():
            _add(file, archive, name, len(text), [text])
        for key, storage in enumerate(storages):
            pieces = streaming.pieces(storage)
            _add(file, archive, f"data/{key}", storage.nbytes, _counted(pieces, progress))


def _counted(pieces: Iterable[memoryview], progress: Any) -> Iterable[memoryview]:
    for piece in pieces:
        yield piece
        progress.update(len(piece))


def _add(
    file: BinaryIO,
    archive: zipfile.ZipFile,
    name: str,
    size: int,
    pieces: Iterable[bytes | memoryview],
) -> None:
    """Adds an entry whose content starts at a multiple of `ALIGNMENT` bytes."""
    entry = zipfile.ZipInfo(f"{_ROOT}/{name}")  # of 1980: the time would change the bytes
    entry.file_size = size
    large = size * 1.05 > zipfile.ZIP64_LIMIT  # with the reserve that zipfile itself keeps
    header = 30 + len(entry.filename) + 4 + (_ZIP64_FIELD if large else 0)
    filler = -(file.tell() + header) % ALIGNMENT
    entry.extra = struct.pack("<HH", _FILLER, filler) + bytes(filler)
    with archive.open(entry, "w", force_zip64=large) as stream:
        for piece in pieces:
            stream.write(piece)
    entry.extra = b""  # the directory at the end repeats the header and needs no filler
