"""Where a bundle is written: it appears whole or not at all.

It is filled in a hidden folder beside its place and takes its name when it is complete, so that an
earlier bundle is lost only to one that works.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from flowad_jax import archive, files, schema
from flowad_jax.bundle import card
from flowad_jax.errors import UserError

_LONGEST = 2**24  # bytes of a card
_HEADER = schema.table({"written_by": {"enum": [card.WRITTEN_BY]}, "files": schema.table({})})


def check(output: str) -> Path:
    """Returns the absolute place of a bundle, where there is nothing or an earlier bundle.

    Raises:
      UserError: something else is there, which stays as it is.
    """
    place = Path(os.path.realpath(output))
    if not output:
        raise UserError("--output is empty: name a folder, such as screws.flowad")
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return place
    try:
        found = _header(place)
    except (OSError, IndexError, RuntimeError, zipfile.BadZipFile, UserError):
        what = "folder" if place.is_dir() else "file"
        message = f"{output} is a {what} that flowad export did not write: name another"
        raise UserError(message) from None
    ours = {name.partition("/")[0] for name in found["files"]}
    ours |= {card.CARD, "__pycache__"}  # Python makes that one where run.py is imported
    if place.is_dir() and (others := {path.name for path in place.iterdir()} - ours):
        raise UserError(f"{output} holds {min(others)} beside a bundle: move that away first")
    return place


def _header(place: Path) -> Any:
    """Reads as much of a bundle's card, in a folder or a zip, as shows that it is one."""
    if place.is_dir():
        return schema.read(place / card.CARD, _HEADER, "")
    with files.open_regular(place) as file, zipfile.ZipFile(file) as packed:
        names = [name for name in packed.namelist() if name.endswith(f"/{card.CARD}")]
        with packed.open(names[0]) as content:
            return schema.parse(content.read(_LONGEST), names[0], _HEADER, "")


@contextlib.contextmanager
def filling(place: Path) -> Iterator[Path]:
    """Gives a hidden folder to fill; it becomes ``place``, or its zip, if all went well.

    SIGTERM ends the process as Ctrl-C does, so that nothing is left behind.

    Raises:
      UserError: it cannot be written.
    """
    created = [path for path in place.parents if not path.exists()]  # the innermost first
    try:
        with _terminated_as_interrupted(), contextlib.ExitStack() as stack:
            with files.writing(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                name = tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}-")
                stack.callback(shutil.rmtree, name, ignore_errors=True)
            folder = Path(name, place.name.removesuffix(".zip") or place.name)
            folder.mkdir()
            yield folder
            with files.writing(place):
                _move(folder, place)
    except BaseException:
        for path in created:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _move(folder: Path, place: Path) -> None:
    """Puts a bundle that is complete in its place; what is there moves to where the bundle was."""
    if place.suffix == ".zip":
        packed = folder.with_name("packed")
        archive.pack(packed, folder)
        os.replace(packed, place)
        return
    folder.chmod(0o755)
    if place.exists():
        earlier = folder.with_name("earlier")
        place.rename(earlier)
        try:
            folder.rename(place)
        except BaseException:
            earlier.rename(place)
            raise
    else:
        folder.rename(place)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """While open, SIGTERM unwinds the program instead of ending it where it stands."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
