"""Reading only what is a file; writing so that no crash or full disk damages what exists."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from flowad_jax.errors import UserError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
# Spreadsheets take the full-width forms of = + - @ for the plain ones.
_STARTS_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def open_regular(path: str | Path) -> BufferedReader:
    """Opens a regular file, or a link to one, for reading; never waits.

    ``open`` would wait for a writer to a named pipe, perhaps forever, and a device may never end.

    Raises:
      OSError: there is no such file, it may not be read, or it is a folder, named pipe, socket or
        device. ``strerror`` says which.
    """
    # Before opening, because that alone makes some devices do things; after it, because another
    # file may have taken the name in between.
    _check_regular(os.stat(path), path)
    wait = getattr(os, "O_NONBLOCK", 0)
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | wait))  # noqa: SIM115
    try:
        _check_regular(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result, path: str | Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns an operating system's refusal to write into one line that names ``path``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot write {path}: {reason}; free some space or choose another folder"
        ) from error


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Gives a temporary file to write; it takes the place of ``path`` only if all went well.

    Raises:
      UserError: the file cannot be written.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Same folder, so that the final rename is atomic; same suffix, so that writers which go
        # by the name of the file pick the same format.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Gives a temporary folder to fill; it becomes ``path`` only if all went well.

    Args:
      path: does not exist, or is an empty folder.

    Raises:
      UserError: the folder cannot be made.
    """
    path = Path(path).absolute()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        yield temporary
        with writing(path):
            temporary.chmod(0o755)
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file in one go.

    Raises:
      UserError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        # File names need not be UTF-8. Their bytes become escapes, which JSON reads back.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def spreadsheet_safe(cell: Any) -> Any:
    """Returns a CSV cell that no spreadsheet takes for a formula.

    Text that begins like one, such as a file called ``=HYPERLINK(...)``, gets a leading ``'``,
    which marks text. Numbers, also as text, stay as they are.
    """
    if not isinstance(cell, str) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}" if cell.startswith(_STARTS_FORMULA) else cell


def csv_row(cells: Iterable[Any]) -> str:
    """Returns a line of a CSV file, of cells that are `spreadsheet_safe`."""
    text = io.StringIO()
    # With this end of a line the writer quotes cells that hold either of its characters.
    csv.writer(text, lineterminator="\r\n").writerow(map(spreadsheet_safe, cells))
    return text.getvalue().removesuffix("\r\n") + "\n"
