"""Checksums of files, and of the JSON that holds them: damage is found before anything is used.

They find accidents: failing disks, copies that were cut off, files of another run. They are no
signature: whoever edits a file on purpose can edit its checksum too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowad_jax import files, schema
from flowad_jax.errors import UserError


def of_files(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below a folder, by its path there."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): of_file(path) for path in found}


def of_file(path: Path) -> str:
    """Returns the SHA-256 of a file; raises an OSError if it cannot be read."""
    with files.open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_damage(folder: Path, expected: Mapping[str, str]) -> str | None:
    """Says which of the ``expected`` files is missing or has another checksum; None: none."""
    for name, digest in expected.items():
        try:
            if of_file(folder / name) != digest:
                return f"{name} has changed (its checksum differs)"
        except (OSError, ValueError) as error:
            return f"{name} cannot be read ({getattr(error, 'strerror', None) or error})"
    return None


def seal(content: dict[str, Any]) -> str:
    """Returns JSON that holds ``content`` and its checksum, see `read_sealed`."""
    return json.dumps({"sha256": of_json(content), "content": content}, indent=2) + "\n"


def read_sealed(file: Path, content: schema.Schema, remedy: str) -> tuple[dict[str, Any], bool]:
    """Reads a file that holds what `seal` made, or, from version 0.1, the content alone.

    Returns the content, which has to match its schema, and whether it has a checksum; ``remedy``
    ends the message where it does not.

    Raises:
      UserError: the file is missing, damaged, or holds something else.
    """
    found = schema.read(file, schema.table({}), remedy)
    # Damage cannot make one of version 0.1 of a sealed file: there the key lies a level below.
    sealed = "encoder_sha256" not in found
    if sealed:
        if found.keys() != {"sha256", "content"} or found["sha256"] != of_json(found["content"]):
            raise UserError(f"{file} has changed (its checksum differs): {remedy}")
        found = found["content"]
    schema.check(found, file, content, remedy)
    return found, sealed


def of_json(value: Any) -> str:
    """Returns the SHA-256 of a JSON value, however it is written."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
