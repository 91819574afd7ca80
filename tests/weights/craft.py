"""Writes PyTorch checkpoints by hand, operation by operation, also such as torch never writes."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
NAMES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def named(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def many(*items: bytes) -> bytes:
    """A tuple of any length."""
    return b"(" + b"".join(items) + b"t"


def numbers(values) -> bytes:
    return many(*(integer(value) for value in values))


def mapping(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(key: str, dtype: str, count: int, *view: bytes) -> bytes:
    kind = named("torch", NAMES[dtype])
    return many(text("storage"), kind, text(key), text("cpu"), integer(count), *view) + b"Q"


def tensor(stored: bytes, offset: int, size, stride) -> bytes:
    hooks = named("collections", "OrderedDict") + b")R"
    rebuild = named("torch._utils", "_rebuild_tensor_v2")
    return (
        rebuild
        + many(stored, integer(offset), numbers(size), numbers(stride), b"\x89", hooks)
        + b"R"
    )


def whole(key: str, array: np.ndarray, *view: bytes) -> bytes:
    """A contiguous tensor with a storage of its own."""
    stride = [step // array.itemsize for step in array.strides]
    return tensor(storage(key, array.dtype.name, array.size, *view), 0, array.shape, stride)


def program(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def zip_file(
    path: Path,
    body: bytes,
    storages: dict[str, bytes] | None = None,
    byteorder: bytes = b"little",
    compression: int = zipfile.ZIP_STORED,
    extra: dict[str, bytes] | None = None,
) -> Path:
    entries = {"data.pkl": program(body), "byteorder": byteorder, "version": b"3\n"}
    entries |= {f"data/{key}": data for key, data in (storages or {}).items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in (entries | (extra or {})).items():
            archive.writestr(f"archive/{name}", data)
    return path


def legacy_file(
    path: Path,
    body: bytes,
    storages: dict[str, np.ndarray] | None = None,
    keys: list | None = None,
    little_endian: bool = True,
    protocol: int = 1001,
) -> Path:
    storages = storages or {}
    stream = io.BytesIO()
    for header in (MAGIC, protocol, {"little_endian": little_endian, "type_sizes": {"int": 4}}):
        stream.write(pickle.dumps(header, 2))
    stream.write(program(body))
    stream.write(pickle.dumps(list(storages) if keys is None else keys, 2))
    for array in storages.values():
        stream.write(struct.pack("<q", array.size) + array.tobytes())
    path.write_bytes(stream.getvalue())
    return path


def file(path: Path, body: bytes, storages: dict[str, np.ndarray], legacy: bool) -> Path:
    """A file of either format."""
    if legacy:
        return legacy_file(path, body, storages)
    return zip_file(path, body, {name: array.tobytes() for name, array in storages.items()})


def checkpoint(path: Path, items: dict[str, np.ndarray], legacy: bool = False) -> Path:
    """A flat state dict of contiguous tensors."""
    body = mapping({name: whole(name, array) for name, array in items.items()})
    return file(path, body, items, legacy)


def add_zip_entries(path: Path, entries: bytes, count: int) -> None:
    """Adds entries to the directory of a zip file, which has some already."""
    content = path.read_bytes()
    at, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    count += content[at:end].count(b"PK\x01\x02")
    directory = content[at:end] + entries
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), at, 0)
    path.write_bytes(content[:at] + directory + tail)
