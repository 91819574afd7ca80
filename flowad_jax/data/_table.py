"""Tables of images, with a header and a line for each, and the paths written in them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from flowad_jax.errors import LayoutError, UserError

_AGAIN = "unpack the data set again"


class Row(NamedTuple):
    """A line of a table.

    Attributes:
      where: table and line, for messages.
      cells: what the line holds, by the names of the columns.
    """

    where: str
    cells: dict[str, str]


def rows(
    table: Path,
    columns: Sequence[str],
    fix: str,
    *,
    optional: Sequence[str] = (),
    delimiters: str = ",",
) -> list[Row]:
    """Reads all lines that hold something, without the spaces around cells.

    Args:
      table: a file in UTF-8, with byte order mark or without.
      columns: those that it must have, in any order and among others.
      fix: what to do about a damaged table; ends every message.
      optional: further columns that matter; what else there is is not looked at.
      delimiters: what may separate cells; that which makes most of the header counts.

    Raises:
      UserError: the table is unreadable, lacks a column or has one twice, or a line has more or
        fewer cells than the header.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(delimiters, key=header.count))
            return list(_parsed(reader, table, columns, optional, fix))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read '{table}': {error}: {fix}") from error


def _parsed(
    reader: Any, table: Path, columns: Sequence[str], optional: Sequence[str], fix: str
) -> Iterator[Row]:
    header = [name.strip() for name in next(reader, [])]
    for name in columns:
        if name not in header:
            raise UserError(f"'{table}' has no column '{name}': {fix}")
    for name in (*columns, *optional):
        if header.count(name) > 1:
            raise UserError(f"'{table}' has the column '{name}' twice: {fix}")
    for line in reader:
        cells = [cell.strip() for cell in line]
        where = f"'{table}' line {reader.line_num}"
        if any(cells) and len(cells) != len(header):
            raise UserError(f"{where} has not {len(header)} cells: {fix}")
        if any(cells):
            yield Row(where, dict(zip(header, cells, strict=True)))


def below(folder: Path, where: str, name: str, fix: str, absent: str = _AGAIN) -> Path:
    """Returns a file that a table or list names, relative to a folder.

    Args:
      folder: that it has to lie in.
      where: who names it, for messages.
      name: its path, with ``/`` between folders.
      fix: what to do about a name that is no path in the folder.
      absent: what to do about a file that is not there.

    Raises:
      UserError: the path is empty, absolute or leaves the folder.
      LayoutError: there is no such file.
    """
    relative = PurePosixPath(name)
    if not relative.parts or relative.is_absolute() or ".." in relative.parts:
        raise UserError(f"{where}: {name!r} is no path of a file below '{folder}': {fix}")
    path = folder / relative
    if not os.path.isfile(path):  # unlike Path.is_file, false for impossible names too
        raise LayoutError(f"{where}: '{folder}' has no file {name!r}: {absent}")
    return path
