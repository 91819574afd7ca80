"""Which images there are to judge, or to learn from: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from flowad_jax.data import layout
from flowad_jax.data.image_file import SUFFIXES
from flowad_jax.errors import UserError

_NOWHERE = Path(os.devnull)  # a folder that holds nothing


class Found(NamedTuple):
    """What inputs hold, by `resolved` path, in their order; hidden files and folders are left out.

    Skipped are files with other suffixes, broken links, links to folders, folders that cannot be
    listed, and pipes, sockets and devices whatever they are called.
    """

    images: dict[str, Path]
    skipped: dict[str, Path]

    def add(self, other: Found) -> None:
        """Adds what another input holds; what two of them hold stays as the first spells it."""
        for mine, others in zip(self, other, strict=True):
            mine.update({key: path for key, path in others.items() if key not in mine})


class Identity(NamedTuple):
    """One state of a file: a change of its content changes at least one of these."""

    resolved: str
    size: int  # in bytes
    modified: int  # in nanoseconds
    inode: int  # another one if it was replaced by a file as old and as large


def identify(path: Path, key: str | None = None) -> Identity | None:
    """Returns the identity of a file, whose `resolved` path may be known; None if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Identity(key or resolved(path), status.st_size, status.st_mtime_ns, status.st_ino)


def resolved(path: Path) -> str:
    """The absolute path of a file: links to its folder are followed, a link in its place is not.

    It is the same however the folder is spelled, and two names in a folder are two images.
    """
    return os.path.join(os.path.realpath(path.parent), path.name)


def split(values: Iterable[str], key: str = "--input") -> list[str]:
    """Separates what commas join; a value that exists is one path, commas and all.

    ``key`` is the name of the flag that the values come from.

    Raises:
      UserError: nothing is left.
    """
    parts: list[str] = []
    for value in values:
        parts += [value] if os.path.exists(value) else value.split(",")
    if not any(parts):
        raise UserError(f"{key} is empty: give a file, a folder with images, or a pattern")
    return [part for part in parts if part]


def find(inputs: Sequence[str], leave_out: Path, key: str = "--input") -> Found:
    """Finds the image files of all inputs.

    A file that is named itself is taken whatever its suffix. Folders, with all folders in them, and
    patterns such as ``images/**/left.png`` yield the files whose suffix is of a format that is
    read. What lies in the folder ``leave_out`` does not count.

    Raises:
      UserError: an input matches no image, or its folder cannot be listed.
    """
    found = Found({}, {})
    for item in inputs:
        matched = look_up(item, leave_out)
        if not matched.images:
            raise UserError(
                f"{key}: '{item}' matches no image: give a file, a folder with images, or a "
                "pattern in quotes such as 'images/*.png'"
            )
        found.add(matched)
    return found


def look_up(item: str, leave_out: Path = _NOWHERE) -> Found:
    """Returns what one input holds now, which may be nothing; see `find`."""
    path, output, found = Path(item), os.path.realpath(leave_out), Found({}, {})
    if path.is_dir():
        for folder, here in _folders(path, output, found.skipped):
            for paths, kind in zip(layout.listing(folder), found, strict=True):
                kind.update({os.path.join(here, one.name): one for one in paths})
    elif path.is_file():
        found.images[resolved(path)] = path
    else:
        for one in map(Path, sorted(glob.glob(item, recursive=True))):
            key = resolved(one)
            if not one.is_dir() and not key.startswith(os.path.join(output, "")):
                known = one.suffix.lower() in SUFFIXES and one.is_file()
                (found.images if known else found.skipped)[key] = one
    return found


def _folders(root: Path, output: str, skipped: dict[str, Path]) -> Iterator[tuple[Path, str]]:
    """Yields a folder and those in it with their real paths, but not the output."""

    def note(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):  # it went away in the meantime
            return
        if error.filename == str(root):
            raise UserError(f"cannot list '{root}': {error.strerror}") from error
        skipped[resolved(Path(error.filename))] = Path(error.filename)

    for name, folders, _ in os.walk(root, onerror=note):
        folder, here = Path(name), os.path.realpath(name)
        if here == output:
            folders.clear()
            continue
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        links = [one for one in folders if (folder / one).is_symlink()]
        skipped.update({os.path.join(here, one): folder / one for one in links})
        yield folder, here
