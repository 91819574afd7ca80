"""Which images there are to judge: files, folders and patterns, now and as they arrive."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from flowad_jax.data import _files
from flowad_jax.data._image_file import SUFFIXES
from flowad_jax.errors import UserError

NAP = 0.1  # seconds between looks at whether to stop


def split(values: Iterable[str]) -> list[str]:
    """Separates what commas join; a value that exists is one path, commas and all.

    Raises:
      UserError: nothing is left.
    """
    parts: list[str] = []
    for value in values:
        parts += [value] if os.path.exists(value) else value.split(",")
    if not any(parts):
        raise UserError("--input is empty: give a file, a folder with images, or a pattern")
    return [part for part in parts if part]


def find(inputs: Sequence[str], leave_out: Path) -> list[Path]:
    """Finds the image files of all inputs, each of them once.

    A file that is named itself is taken whatever its suffix. Folders, with all folders in them, and
    patterns yield the files with the suffix of an image format; hidden ones are passed over.

    Args:
      inputs: files, folders and patterns such as ``images/*.png`` or ``images/**/left.png``.
      leave_out: folder whose files do not count: what is written there is no input.

    Returns:
      Paths in the order of the inputs, sorted within each.

    Raises:
      UserError: an input matches no image, or a folder cannot be listed.
    """
    found: dict[Path, Path] = {}
    for item in inputs:
        paths = list(_matches(item, leave_out))
        if not paths:
            raise UserError(
                f"--input: '{item}' matches no image: give a file, a folder with images, or a "
                "pattern in quotes such as 'images/*.png'"
            )
        for path in paths:
            found.setdefault(path.absolute(), path)
    return list(found.values())


def check_folders(inputs: Sequence[str]) -> None:
    """Raises a UserError unless every input can be watched, which takes a folder."""
    for item in inputs:
        if not Path(item).is_dir():
            raise UserError(f"--watch: '{item}' is no folder: give an existing folder to --input")


def arrivals(
    folders: Sequence[str],
    leave_out: Path,
    interval: float,
    stopped: Callable[[], bool],
    seen: dict[str, int],
) -> Iterator[list[Path]]:
    """Yields the new images of folders as they become complete, until told to stop.

    A file counts as complete when size and time of modification are those of the look before. One
    that is there from the start is new as well, and so is one that was written anew.

    Args:
      folders: where to look, also in the folders inside.
      leave_out: as in `find`.
      interval: seconds between two looks.
      stopped: asked often; true ends the wait.
      seen: times of modification, in nanoseconds, of the images that are not new, by path; updated.

    Raises:
      UserError: a folder cannot be listed. One that is gone may come back.
    """
    before: dict[Path, tuple[int, int]] = {}
    while not stopped():
        now = {
            path: stamp
            for folder in folders
            for path in _matches(folder, leave_out)
            if (stamp := _stamp(path)) is not None
        }
        ready = [
            path
            for path, stamp in now.items()
            if before.get(path) == stamp and seen.get(str(path)) != stamp[1]
        ]
        seen.update({str(path): now[path][1] for path in ready})
        before = now
        if ready:
            yield ready
        _wait(interval, stopped)


def modified(path: Path) -> int | None:
    """Time of modification in nanoseconds, or None if the file is gone."""
    stamp = _stamp(path)
    return stamp[1] if stamp else None


def _matches(item: str, leave_out: Path) -> Iterator[Path]:
    path = Path(item)
    if path.is_dir():
        yield from _inside(path, leave_out.absolute())
    elif path.is_file():
        yield path
    else:
        named = (Path(name) for name in sorted(glob.glob(item, recursive=True)))
        output = leave_out.absolute()
        for one in named:
            known = one.suffix.lower() in SUFFIXES and one.is_file()
            if known and output not in one.absolute().parents:
                yield one


def _inside(folder: Path, output: Path) -> Iterator[Path]:
    for root, names, _ in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        here = Path(root)
        if here.absolute() == output:
            names.clear()
        else:
            yield from _files.images(here)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of modification; None for a file that is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _wait(seconds: float, stopped: Callable[[], bool]) -> None:
    """Sleeps in short naps, because a signal does not end a sleep."""
    end = time.monotonic() + seconds
    while not stopped() and (rest := end - time.monotonic()) > 0:
        time.sleep(min(NAP, rest))
