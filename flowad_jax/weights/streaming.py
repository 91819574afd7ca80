"""Large files piece by piece: progress for who waits, and never a second copy in memory."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from tqdm import tqdm

from flowad_jax.errors import UserError

PIECE = 2**20  # bytes between two signs of progress

SAFETENSORS_NAMES = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}


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

    Raises:
      UserError: the format has no name for a tensor's type of number.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": named_dtype(name, tensor, SAFETENSORS_NAMES),
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


def named_dtype(name: str, tensor: np.ndarray, known: Mapping[str, str]) -> str:
    """What a file format calls a tensor's type of number.

    Raises:
      UserError: it has no name for it.
    """
    if tensor.dtype.name not in known:
        raise UserError(
            f"tensor '{name}' of {tensor.dtype} cannot be written; convert it to one of "
            f"{', '.join(known)}"
        )
    return known[tensor.dtype.name]
