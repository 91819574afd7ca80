"""Tables of images, with a header and a line for each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flowad_jax.errors import UserError


class Row(NamedTuple):
    """A line of a table.

    Attributes:
      where: table and line, for messages.
      cells: what the line holds, by the names of the columns.
    """

    where: str
    cells: dict[str, str]


def read(
    table: Path,
    columns: Sequence[str],
    fix: str,
    *,
    optional: Sequence[str] = (),
    delimiters: str = ",",
) -> list[Row]:
    """Reads all lines that hold something, without the spaces around cells.

    The file is in UTF-8, with byte order mark or without. It must have all ``columns``, in any
    order, and may have the ``optional`` ones; others are not looked at. Of the ``delimiters`` that
    counts which makes most of the header.

    Raises:
      UserError: the table is unreadable, lacks a column or has one twice, or a line has more or
        fewer cells than the header; the message ends with ``fix``.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(delimiters, key=first.count))
            lines = [([cell.strip() for cell in line], reader.line_num) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read '{table}': {error}: {fix}") from error
    header = lines.pop(0)[0] if lines else []
    for name in columns:
        if name not in header:
            raise UserError(f"'{table}' has no column '{name}': {fix}")
    for name in (*columns, *optional):
        if header.count(name) > 1:
            raise UserError(f"'{table}' has the column '{name}' twice: {fix}")
    rows = []
    for cells, number in lines:
        where = f"'{table}' line {number}"
        if any(cells) and len(cells) != len(header):
            raise UserError(f"{where} has not {len(header)} cells: {fix}")
        if any(cells):
            rows.append(Row(where, dict(zip(header, cells, strict=True))))
    return rows
