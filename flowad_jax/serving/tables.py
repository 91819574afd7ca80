"""Lines of an output folder: predictions.jsonl, and predictions.csv, which follows from it.

Whatever moment a process is killed at, an earlier output stays readable or the new one is. Lines
are only ever added. An output that replaces an earlier one grows in ``.replacement/`` and takes its
place when it is done: file by file, and what was begun of that the next call finishes. Pictures of
the new one have names of their own, those of the earlier one go last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowad_jax import files
from flowad_jax.serving.places import listed

SUMMARY, LINES, TABLE = "summary.json", "predictions.jsonl", "predictions.csv"
COLUMNS = (
    "path", "score", "p_value", "anomalous", "regions", "width", "height", "seconds", "error",
    "reason",
)  # fmt: skip
_STAGE, _REPLACED = ".replacement", "replaced.jsonl"

Line = dict[str, Any]


def read(path: Path) -> list[Line]:
    """Returns the lines of a file, as far as they are such; none if there is no file.

    A crash may have cut off the last one.

    Raises:
      OSError: the file cannot be read.
    """
    try:
        return list(_parsed(path.read_bytes()))
    except FileNotFoundError:
        return []


def mend(folder: Path) -> None:
    """Cuts off a last line that is not whole, and writes the table of all lines anew.

    Where there are no files, there are then some without a line.

    Raises:
      UserError: a file cannot be written.
    """
    with files.writing(folder):
        path = folder / LINES
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if rest := list(_parsed(content[len(whole) :])):  # only its end is missing
            whole += json.dumps(rest[0]).encode() + b"\n"
        if whole != content or not path.exists():
            with files.replacing(path) as temporary:
                temporary.write_bytes(whole)
    files.write_text(
        folder / TABLE, files.csv_row(COLUMNS) + "".join(map(_table_row, _parsed(whole)))
    )


def append(folder: Path, lines: Sequence[Line]) -> None:
    """Adds lines to both files.

    Raises:
      UserError: a file cannot be written.
    """
    _append(folder / LINES, "".join(json.dumps(line) + "\n" for line in lines))
    _append(folder / TABLE, "".join(map(_table_row, lines)))


def stage(folder: Path) -> Path:
    """Returns a folder within an output, for the files that are to replace those of the output."""
    (folder / _STAGE).mkdir(exist_ok=True)
    return folder / _STAGE


def settle(folder: Path) -> None:
    """Puts the staged files of an output into their places; drops them if they are not all there.

    The summary is staged last. Does nothing where nothing is staged.

    Raises:
      UserError: a file cannot be moved or removed.
    """
    stage = folder / _STAGE
    with files.writing(folder):
        if not stage.is_dir():
            return
        if not (stage / SUMMARY).exists():
            remove_pictures(folder, read(stage / LINES), read(folder / LINES))
        else:
            # Without staged lines, the call that did not end has come further than this.
            if (stage / LINES).exists() and (folder / LINES).exists():
                shutil.copyfile(folder / LINES, stage / _REPLACED)
            for name in (LINES, TABLE):
                if (stage / name).exists():
                    os.replace(stage / name, folder / name)
            remove_pictures(folder, read(stage / _REPLACED), read(folder / LINES))
            os.replace(stage / SUMMARY, folder / SUMMARY)
        shutil.rmtree(stage)


def remove_pictures(folder: Path, lines: Iterable[Line], keep: Iterable[Line]) -> None:
    """Removes the pictures that lines name, but not those that others name as well."""
    kept = {place for line in keep for place in listed(line)}
    for line in lines:
        for place in listed(line):
            if place not in kept:
                (folder / place).unlink(missing_ok=True)


def _parsed(content: bytes) -> Iterator[Line]:
    for text in content.split(b"\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("path"), str):
            yield line


def _append(path: Path, text: str) -> None:
    # A file name that is not UTF-8, which Linux allows, must not end the run.
    with (
        files.writing(path),
        path.open("a", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        file.write(text)


def _table_row(line: Mapping[str, Any]) -> str:
    regions = line.get("regions")
    cells = {**line, "regions": len(regions) if isinstance(regions, Collection) else None}
    return files.csv_row(cells.get(column) for column in COLUMNS)
