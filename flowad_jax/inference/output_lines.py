"""Lines of an output folder: predictions.jsonl, and predictions.csv, which follows from it.

Whatever moment a process is killed at, an earlier output stays readable or the new one is. Lines
are only ever added. An output that replaces an earlier one grows in ``.replacement/`` and takes its
place when it is done: file by file, and what was begun of that the next call finishes. Pictures of
the new one have names of their own, those of the earlier one go last. A file that cannot be written
or moved is a `UserError`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowad_jax import files
from flowad_jax.inference.output_paths import pictures_of

SUMMARY, LINES, TABLE = "summary.json", "predictions.jsonl", "predictions.csv"
COLUMNS = (
    "path", "score", "p_value", "anomalous", "regions", "width", "height", "seconds", "error",
    "reason", "decided_by",
)  # fmt: skip
_REPLACEMENT, _REPLACED = ".replacement", "replaced.jsonl"

Line = dict[str, Any]


def read(path: Path) -> list[Line]:
    """Returns the lines of a file as far as they are whole; none if there is no file.

    Raises:
      OSError: the file cannot be read.
    """
    return list(_parse(path.read_bytes())) if path.exists() else []


def repair(folder: Path) -> None:
    """Cuts off a last line that is not whole, and writes the table of all lines anew.

    Where there are no files, there are then some without a line.
    """
    with files.writing(folder):
        path = folder / LINES
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for line in _parse(content[len(whole) :]):  # only its end is missing
            whole += json.dumps(line).encode() + b"\n"
        if whole != content or not path.exists():
            with files.atomic_write(path) as temporary:
                temporary.write_bytes(whole)
    rows = "".join(map(_table_row, _parse(whole)))
    files.write_text(folder / TABLE, files.csv_row(COLUMNS) + rows)


def append(folder: Path, lines: Sequence[Line]) -> None:
    """Adds lines to both files."""
    for name, text in (
        (LINES, "".join(json.dumps(line) + "\n" for line in lines)),
        (TABLE, "".join(map(_table_row, lines))),
    ):
        path = folder / name
        # A file name that is not UTF-8, which Linux allows, must not end the run.
        with files.writing(path), path.open("ab") as file:
            file.write(text.encode(errors="backslashreplace"))


def begin_replacement(folder: Path) -> Path:
    """Returns a folder within an output, for the files that are to replace those of the output."""
    (folder / _REPLACEMENT).mkdir(exist_ok=True)
    return folder / _REPLACEMENT


def end_replacement(folder: Path) -> None:
    """Moves the files of a replacement to their places; drops them if they are not all there.

    The summary is written last. Does nothing where no replacement was begun.
    """
    stage = folder / _REPLACEMENT
    with files.writing(folder):
        if not stage.is_dir():
            return
        if not (stage / SUMMARY).exists():
            _remove_pictures(folder, stage / LINES)
        else:
            # Without new lines, the call that did not end has come further than this.
            if (stage / LINES).exists() and (folder / LINES).exists():
                shutil.copyfile(folder / LINES, stage / _REPLACED)
            for name in (LINES, TABLE):
                if (stage / name).exists():
                    os.replace(stage / name, folder / name)
            _remove_pictures(folder, stage / _REPLACED)
            os.replace(stage / SUMMARY, folder / SUMMARY)
        shutil.rmtree(stage)


def _remove_pictures(folder: Path, lines: Path) -> None:
    """Removes the pictures that a file of lines names, but not those of the output's own lines."""
    kept = {place for line in read(folder / LINES) for place in pictures_of(line)}
    for place in {place for line in read(lines) for place in pictures_of(line)} - kept:
        (folder / place).unlink(missing_ok=True)


def _parse(content: bytes) -> Iterator[Line]:
    for text in content.split(b"\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("path"), str):
            yield line


def _table_row(line: Mapping[str, Any]) -> str:
    regions = line.get("regions")
    cells = {**line, "regions": len(regions) if isinstance(regions, Collection) else None}
    return files.csv_row(cells.get(column) for column in COLUMNS)
