"""Zip files, also those that NumPy reads, whose bytes depend on nothing but what they hold."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def pack(path: Path, folder: Path) -> None:
    """Writes the files of a folder, below its name, into a zip."""
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = file.relative_to(folder.parent).as_posix()
            _add(packed, name, file.read_bytes())


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays so that `numpy.load` reads them by name."""
    with zipfile.ZipFile(path, "w") as packed:
        for name, values in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(values), allow_pickle=False)
            _add(packed, f"{name}.npy", content.getvalue())


def _add(packed: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name)  # of 1980, whenever it is written
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    entry.create_system = 3  # the same on Windows
    packed.writestr(entry, content)
