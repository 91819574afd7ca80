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
from typing import Any

import numpy as np

from flowad_jax import files
from flowad_jax.errors import UserError
from flowad_jax.weights import streaming

Storages = dict[int, tuple[int, np.ndarray]]  # by identity: the key in the file, and the array

SUFFIXES = (".pth", ".pt", ".safetensors")
ALIGNMENT = 64

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
        items = content.items() if isinstance(content, Mapping) else [("the content", content)]
        for name, value in items:
            if type(name) is not str or not isinstance(value, np.ndarray):
                raise UserError(
                    f"{path}: .safetensors holds named tensors only, and '{name}' is a "
                    f"{type(value).__name__}; write a .pth file"
                )
        with files.atomic_write(path) as part:
            streaming.write_safetensors(part, content, {"format": "pt"})
        return
    storages: Storages = {}
    program = b"\x80\x02" + _pickled("", content, storages) + b"."
    with files.atomic_write(path) as part:
        _write_zip(part, program, [tensor for _, tensor in storages.values()])


def check_suffix(path: Path) -> str:
    """Returns the suffix of a file for PyTorch; raises a UserError for others."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: a file for PyTorch ends in {', '.join(SUFFIXES)}")
    return path.suffix


def _pickled(name: str, value: Any, storages: Storages) -> bytes:
    """The operations that put a value on the stack; its storages are added to those.

    Python's pickler would have to import PyTorch to name what is in it.
    """
    if isinstance(value, np.ndarray):
        return _tensor(name, value, storages)
    if isinstance(value, Mapping):
        items = (
            _plain(name, key) + _pickled(f"{name}.{key}".lstrip("."), item, storages)
            for key, item in value.items()
        )
        return _ORDERED_DICT + b"(" + b"".join(items) + b"u"
    if type(value) in (list, tuple):
        start, end = (b"](", b"e") if type(value) is list else (b"(", b"t")
        parts = (_pickled(f"{name}[{i}]", item, storages) for i, item in enumerate(value))
        return start + b"".join(parts) + end
    return _plain(name, value)


def _tensor(name: str, tensor: np.ndarray, storages: Storages) -> bytes:
    kind = streaming.dtype_name(name, tensor, "torch")
    key, _ = storages.setdefault(id(tensor), (len(storages), tensor))
    identity = (_plain("", part) for part in (str(key), "cpu", tensor.size))
    storage = b"(" + _plain("", "storage") + f"ctorch\n{kind}Storage\n".encode()
    storage += b"".join(identity) + b"tQ"
    steps = [math.prod(tensor.shape[axis + 1 :]) for axis in range(tensor.ndim)]
    view = _plain("", 0) + _numbers(tensor.shape) + _numbers(steps)
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
    # PyTorch takes the folder of the first entry for that of all others.
    texts = {"data.pkl": program, "byteorder": b"little", "version": b"3\n"}
    entries = {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
    entries |= {f"data/{key}": storage for key, storage in enumerate(storages)}
    total = sum(entry.nbytes for entry in entries.values())
    with (
        open(path, "wb") as file,
        zipfile.ZipFile(file, "w") as archive,
        streaming.bar(total, "write") as progress,
    ):
        for name, content in entries.items():
            entry = zipfile.ZipInfo(f"archive/{name}")  # of 1980: the time would change the bytes
            entry.file_size = content.nbytes
            large = entry.file_size * 1.05 > zipfile.ZIP64_LIMIT  # with the reserve of zipfile
            header = 30 + len(entry.filename) + 4 + (_ZIP64_FIELD if large else 0)
            filler = -(file.tell() + header) % ALIGNMENT
            entry.extra = struct.pack("<HH", _FILLER, filler) + bytes(filler)
            with archive.open(entry, "w", force_zip64=large) as stream:
                for piece in streaming.pieces(content):
                    stream.write(piece)
                    progress.update(len(piece))
            entry.extra = b""  # the directory at the end repeats the header and needs no filler
