"""Which images there are to judge: files, folders and patterns, once or as they arrive."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .errors import UserError
from .images import SUFFIXES


class State(NamedTuple):
    """One state of a file: a change of its content changes at least one of these."""

    resolved: str
    size: int
    modified: int
    inode: int


class Found(NamedTuple):
    """Images, and what lies beside them and is none, by `resolved` path."""

    images: dict[str, Path]
    skipped: dict[str, Path]


def state_of(path: Path) -> State | None:
    """Returns the state of a file; None if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return State(resolved(path), status.st_size, status.st_mtime_ns, status.st_ino)


def resolved(path: Path) -> str:
    """The absolute path of a file, by whatever links its folder was reached."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def split(values: Sequence[str]) -> list[str]:
    """Separates what commas join; a value that exists is one path, commas and all."""
    parts = [
        x for value in values for x in ([value] if os.path.exists(value) else value.split(","))
    ]
    if not any(parts):
        raise UserError("--input is empty: give a file, a folder with images, or a pattern")
    return [part for part in parts if part]


def find(inputs: Sequence[str], output: Path) -> Found:
    """Finds the images of all inputs; nothing in the output folder is one.

    Raises:
      UserError: an input has no image.
    """
    found = Found({}, {})
    for item in inputs:
        one = look_up(item, output)
        if not one.images:
            raise UserError(
                f"--input: '{item}' matches no image: give a file, a folder with images, or a "
                "pattern in quotes such as 'images/*.png'"
            )
        for mine, others in zip(found, one, strict=True):
            mine.update({key: path for key, path in others.items() if key not in mine})
    return found


def look_up(item: str, output: Path) -> Found:
    """Returns what one input holds now; a file that is named is an image whatever its suffix."""
    found = Found({}, {})
    if os.path.isfile(item):
        found.images[resolved(Path(item))] = Path(item)
        return found
    is_folder = os.path.isdir(item)
    matches = map(Path, sorted(glob.glob(item, recursive=True)))
    for path in _files_in(item) if is_folder else (x for x in matches if not x.is_dir()):
        key, outside = resolved(path), os.path.join(os.path.realpath(output), "")
        if not key.startswith(outside):
            is_image = path.suffix.lower() in SUFFIXES and path.is_file()
            (found.images if is_image else found.skipped)[key] = path
    return found


def _files_in(root: str) -> Iterator[Path]:
    """Yields the visible files in a folder and those in it; also links to folders and what fails.

    Raises:
      UserError: the folder cannot be listed.
    """
    failed: list[Path] = []

    def note(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):  # it went away in the meantime
            return
        if error.filename == root:
            raise UserError(f"cannot list '{root}': {error.strerror}") from error
        failed.append(Path(error.filename))

    for name, folders, files in os.walk(root, onerror=note):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        yield from (Path(name, file) for file in sorted(files) if not file.startswith("."))
        yield from (link for link in (Path(name, x) for x in folders) if link.is_symlink())
    yield from failed


class Watcher:
    """Finds the images of folders that are complete and were not settled before.

    An image is complete when its state is that of the look before. One that cannot be read may
    still be on its way: it is tried again for ``patience`` seconds, ever more rarely.

    Attributes:
      postponed: the files that are tried again, and why.
      skipped: what lies in the folders and is no image.
    """

    def __init__(self, folders: Sequence[str], output: Path, patience: float) -> None:
        """Raises a `UserError` if one of them is no folder."""
        for folder in folders:
            if not os.path.isdir(folder):
                raise UserError(f"--watch: '{folder}' is no folder: give --input existing folders")
        self._folders, self._output, self._patience = folders, output, patience
        self._before: set[State] = set()
        self._settled: set[tuple[Any, ...]] = set()
        self._failed: dict[State, tuple[float, float]] = {}  # since when, and when to try again
        self.postponed: dict[State, tuple[Path, str]] = {}
        self.skipped: dict[str, Path] = {}

    def look(self) -> list[Path]:
        """Returns what is complete and new; call it again after an interval."""
        images: dict[str, Path] = {}
        for folder in self._folders:
            found = look_up(folder, self._output)
            images |= found.images
            self.skipped |= found.skipped
        now = {state: path for path in images.values() if (state := state_of(path))}
        before, self._before = self._before, set(now)
        self.postponed = {state: it for state, it in self.postponed.items() if state in now}
        clock = time.monotonic()
        return [
            path
            for state, path in now.items()
            if state in before
            and state not in self._settled
            and self._failed.get(state, (0, clock))[1] <= clock
        ]

    def settle(self, state: State) -> None:
        """Notes that this state of a file has its line."""
        self._settled.add(state)
        self.postponed.pop(state, None)

    def settle_all(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Notes the lines of an earlier call."""
        for line in lines:
            state = tuple(line.get(name) for name in State._fields)
            if all(isinstance(value, str | int) for value in state):
                self._settled.add(state)

    def postpone(self, state: State, path: Path, error: str) -> bool:
        """Notes that a file cannot be read; returns whether it will be tried again."""
        clock = time.monotonic()
        since, _ = self._failed.get(state, (clock, 0.0))
        again = min(clock + (clock - since), since + self._patience)
        self._failed[state] = since, again
        self.postponed[state] = path, error
        return clock < since + self._patience
