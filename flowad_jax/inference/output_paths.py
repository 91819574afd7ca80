"""File names of the pictures: safe everywhere, and none for two images."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

_BYTES = 160  # of a name in UTF-8; with a number and a suffix below the 255 of Linux
# What Windows takes for a device, with any suffix.
_DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.IGNORECASE | re.ASCII)

FOLDERS = {"heatmap": "heatmaps", "overlay": "overlays", "map": "maps"}


class OutputPaths:
    """Gives every image file names of its own, the same whenever it comes again."""

    def __init__(
        self, folder: Path, suffixes: Mapping[str, str], lines: Sequence[Mapping[str, Any]] = ()
    ):
        """Takes an output folder, suffixes of pictures by kind, and lines that keep their names.

        What is in the folder already under another name is somebody else's.
        """
        self._folder, self._suffixes = folder, suffixes
        self._names = {
            line["path"]: PurePosixPath(place).stem for line in lines for place in pictures_of(line)
        }
        self._taken = {_folded(name) for name in self._names.values()}
        self._last: dict[str, int] = {}  # number of a stem, so that many equal ones are fast

    def of(self, path: str) -> dict[str, str]:
        """Paths of the pictures of an image, by kind, relative to the folder."""
        if path not in self._names:
            stem = safe_name(Path(path).stem)
            number = self._last.get(_folded(stem), 1)
            while self._is_taken(name := stem if number == 1 else f"{stem}-{number}"):
                number += 1
            self._last[_folded(stem)] = number
            self._names[path] = name
            self._taken.add(_folded(name))
        return self._at(self._names[path])

    def _is_taken(self, name: str) -> bool:
        foreign = ((self._folder / place).exists() for place in self._at(name).values())
        return _folded(name) in self._taken or any(foreign)

    def _at(self, name: str) -> dict[str, str]:
        return {kind: f"{FOLDERS[kind]}/{name}{end}" for kind, end in self._suffixes.items()}


def safe_name(text: str) -> str:
    """A file name that every file system takes: letters and digits of all scripts, ``-``, ``_``.

    Letters are composed, and look-alikes such as those of full width are the plain ones.
    """
    plain = unicodedata.normalize("NFKC", text)
    kept = (x if x == "_" or unicodedata.category(x)[0] in "LMN" else "-" for x in plain)
    name = re.sub("-+", "-", "".join(kept)).strip("-")[:80]
    name = name.encode()[:_BYTES].decode(errors="ignore") or "image"
    return f"image-{name}" if _DEVICE.fullmatch(name) else name


def _folded(name: str) -> str:
    """Equal for names that are one on a file system which ignores case, or how letters are made."""
    return unicodedata.normalize("NFKD", name.casefold())


def pictures_of(line: Mapping[str, Any]) -> Iterator[str]:
    """Pictures that a line names, if they are where pictures are put."""
    for kind, folder in FOLDERS.items():
        parts = PurePosixPath(str(line.get(kind, ""))).parts
        if len(parts) == 2 and parts[0] == folder and parts[1] != "..":
            yield "/".join(parts)
