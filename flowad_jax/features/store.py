"""Where feature maps are kept: in memory of the device, in memory of the host, or on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from flowad_jax import schema
from flowad_jax.errors import UserError

Maps = tuple[jax.Array, ...]  # (B, h, w, C) of every tap
Put = Callable[[int, int, Maps], None]

_CARD = "card.json"
_BLOCK = 2**24  # bytes read at a time for a checksum


class Layout(NamedTuple):
    """What a store has to hold: so many rows of (h, w, C) for every feature map."""

    rows: int
    shapes: tuple[tuple[int, ...], ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """Bytes of all maps."""
        return sum(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of every map, over all images."""
        return tuple(self.rows * int(np.prod(s)) * self.dtype.itemsize for s in self.shapes)

    @property
    def files(self) -> list[str]:
        """Names of the files of a `DiskStore`."""
        return [f"map{level}.bin" for level in range(len(self.shapes))]


class Store(Protocol):
    """Maps of a set of images, found by row."""

    def take(self, index: np.ndarray) -> Maps:
        """Returns the maps (B, h, w, C) of rows ``index`` (B,) on the device, in float32."""


class HostStore:
    """Maps in memory of the host; a batch is copied to the device while that still computes."""

    def __init__(self, layout: Layout):
        self._arrays = [np.empty((layout.rows, *s), layout.dtype) for s in layout.shapes]

    def put(self, first: int, count: int, maps: Maps) -> None:
        """Keeps the first ``count`` rows of maps (B, h, w, C) as rows ``first`` and following."""
        for array, x in zip(self._arrays, maps, strict=True):
            array[first : first + count] = np.asarray(x)[:count]

    def take(self, index: np.ndarray) -> Maps:
        """Returns maps of rows, see `Store`."""
        return tuple(_to_device(array[index]) for array in self._arrays)


class DeviceStore:
    """Maps in memory of the default device, gathered there."""

    def __init__(self, layout: Layout):
        self._arrays = tuple(jnp.zeros((layout.rows, *s), layout.dtype) for s in layout.shapes)

    def put(self, first: int, count: int, maps: Maps) -> None:
        """As `HostStore.put`."""
        index = np.arange(len(maps[0]))
        # Rows beyond the end are dropped.
        index = np.where(index < count, first + index, len(self._arrays[0]))
        self._arrays = _scatter(self._arrays, maps, index)

    def take(self, index: np.ndarray) -> Maps:
        """As `HostStore.take`."""
        return _gather(self._arrays, index)


@jax.jit
def _gather(arrays: Maps, index: jax.Array) -> Maps:
    return tuple(array[index].astype(jnp.float32) for array in arrays)


@partial(jax.jit, donate_argnums=0)
def _scatter(arrays: Maps, maps: Maps, index: jax.Array) -> Maps:
    return tuple(a.at[index].set(x, mode="drop") for a, x in zip(arrays, maps, strict=True))


class DiskStore:
    """Maps in files that are mapped into memory.

    A folder named after the key holds one file per map and a card with the key and the checksums.
    It is written under another name and gets its own when it is complete.
    """

    def __init__(self, path: Path, layout: Layout):
        """Maps the files of a complete folder; use `find` or `write`."""
        self.path = path
        # NumPy knows no bfloat16: files hold plain integers of the same width.
        raw = np.dtype(f"u{layout.dtype.itemsize}")
        self._dtype = layout.dtype
        self._files = [
            np.memmap(path / name, raw, "r", shape=(layout.rows, *shape))
            for name, shape in zip(layout.files, layout.shapes, strict=True)
        ]

    def take(self, index: np.ndarray) -> Maps:
        """As `HostStore.take`."""
        return tuple(_to_device(np.asarray(x[index]).view(self._dtype)) for x in self._files)

    @classmethod
    def find(cls, folder: Path, key: dict[str, Any], layout: Layout) -> DiskStore | None:
        """Opens the maps of a key; None if there are none, or if they are damaged."""
        path = folder / _folder_name(key)
        with contextlib.suppress(OSError, UserError):
            card = schema.read(path / _CARD, schema.ANYTHING, "it is computed anew")
            sums = [_checksum(path / name) for name in layout.files]
            sizes = tuple((path / name).stat().st_size for name in layout.files)
            if card == {"key": key, "crc32": sums} and sizes == layout.sizes:
                return cls(path, layout)
        return None

    @classmethod
    def write(
        cls, folder: Path, key: dict[str, Any], layout: Layout, fill: Callable[[Put], None]
    ) -> DiskStore:
        """Writes the maps that ``fill`` hands to its argument, in order, and opens them.

        Raises:
          UserError: the folder cannot be written; nothing is left behind.
        """
        path = folder / _folder_name(key)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(dir=folder, prefix=".unfinished-"))
            try:
                card = {"key": key, "crc32": _write_maps(unfinished, layout, fill)}
                (unfinished / _CARD).write_text(json.dumps(card, indent=2), encoding="utf-8")
                unfinished.chmod(0o755)
                shutil.rmtree(path, ignore_errors=True)
                os.replace(unfinished, path)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        except OSError as error:
            raise UserError(
                f"cannot keep features in {folder}: {error.strerror or error}; free some space, or "
                "set cache.folder to another folder or cache.place to 'off'"
            ) from error
        return cls(path, layout)


def _write_maps(folder: Path, layout: Layout, fill: Callable[[Put], None]) -> list[int]:
    """Fills the files of all maps; returns their checksums."""
    sums = [0] * len(layout.shapes)
    with contextlib.ExitStack() as stack:
        # Plain writes: a mapped one dies of SIGBUS when the disk is full.
        files = [stack.enter_context((folder / name).open("wb")) for name in layout.files]

        def put(first: int, count: int, maps: Maps) -> None:
            del first
            for level, x in enumerate(maps):
                data = np.ascontiguousarray(np.asarray(x)[:count]).view(np.uint8).data
                files[level].write(data)
                sums[level] = zlib.crc32(data, sums[level])

        fill(put)
    return sums


def _to_device(array: np.ndarray) -> jax.Array:
    return jax.device_put(array).astype(jnp.float32)


def _folder_name(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value
