"""Large files piece by piece: progress for who waits, and never a second copy in memory."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  teaches NumPy bfloat16 and float8
import numpy as np
import safetensors
from tqdm import tqdm

from flowad_jax.errors import UserError

PIECE = 2**20  # bytes between two signs of progress


class DtypeNames(NamedTuple):
    """How file formats name a dtype; empty where they do not have it.

    Attributes:
      torch: prefix of PyTorch's storage class.
      safetensors: as in the header of a ``.safetensors`` file.
    """

    torch: str = ""
    safetensors: str = ""


DTYPES = {
    "bool": DtypeNames("Bool", "BOOL"),
    "uint8": DtypeNames("Byte", "U8"),
    "int8": DtypeNames("Char", "I8"),
    "int16": DtypeNames("Short", "I16"),
    "int32": DtypeNames("Int", "I32"),
    "int64": DtypeNames("Long", "I64"),
    "uint16": DtypeNames(safetensors="U16"),
    "uint32": DtypeNames(safetensors="U32"),
    "uint64": DtypeNames(safetensors="U64"),
    "float16": DtypeNames("Half", "F16"),
    "bfloat16": DtypeNames("BFloat16", "BF16"),
    "float32": DtypeNames("Float", "F32"),
    "float64": DtypeNames("Double", "F64"),
    "float8_e4m3fn": DtypeNames(),
    "float8_e5m2": DtypeNames(),
    "complex64": DtypeNames("ComplexFloat"),
    "complex128": DtypeNames("ComplexDouble"),
}


def dtype_name(name: str, tensor: np.ndarray, file_format: str) -> str:
    """What a format, a field of `DtypeNames`, calls the dtype of a tensor, or a UserError."""
    known = {dtype: getattr(names, file_format) for dtype, names in DTYPES.items()}
    if not known.get(tensor.dtype.name):
        raise UserError(
            f"tensor '{name}' of {tensor.dtype} cannot be written; convert it to one of "
            f"{', '.join(dtype for dtype, named in known.items() if named)}"
        )
    return known[tensor.dtype.name]


def bar(total: int, what: str) -> tqdm:
    """A bar over bytes, for a terminal and for what takes longer than a second."""
    return tqdm(
        total=total, desc=what, unit="B", unit_scale=True, delay=1, leave=False, disable=None
    )


def pieces(tensor: np.ndarray) -> Iterator[memoryview]:
    """The bytes of a tensor in C order, little-endian; at most this tensor is copied."""
    plain = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
    content = plain.reshape(-1).view(np.uint8).data
    for start in range(0, len(content), PIECE):
        yield content[start : start + PIECE]


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the tensors of a ``.safetensors`` file and its metadata."""
    tensors = {}
    with (
        safetensors.safe_open(path, framework="np") as file,
        bar(path.stat().st_size, "read") as progress,
    ):
        for name in file.keys():  # noqa: SIM118
            tensors[name] = file.get_tensor(name)
            progress.update(tensors[name].nbytes)
        return tensors, file.metadata() or {}


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes tensor by tensor; the library would hold all of them a second time.

    The format: the length of a JSON header, the header, the tensors one after the other.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": dtype_name(name, tensor, "safetensors"),
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file, bar(end, "write") as progress:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors.values():
            for piece in pieces(tensor):
                file.write(piece)
                progress.update(len(piece))
