"""File names of the pictures: safe everywhere, and none for two images."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

# What Windows takes for a device, with any suffix.
_DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.IGNORECASE | re.ASCII)

FOLDERS = {"heatmap": "heatmaps", "overlay": "overlays", "map": "maps"}


class Places:
    """Gives every image file names of its own, the same whenever it comes again."""

    def __init__(
        self, folder: Path, suffixes: Mapping[str, str], lines: Sequence[Mapping[str, Any]] = ()
    ):
        """Takes the names that are in use.

        Args:
          folder: output folder; what is there already under a name is somebody else's.
          suffixes: of the pictures to be written, by kind.
          lines: of an earlier call, whose images keep their names.
        """
        self._folder, self._suffixes = folder, suffixes
        self._names: dict[str, str] = {}
        for line in lines:
            for place in listed(line):
                self._names[line["path"]] = PurePosixPath(place).stem
        self._taken = {name.lower() for name in self._names.values()}
        self._last: dict[str, int] = {}  # number of a stem, so that many equal ones are fast

    def of(self, path: str) -> dict[str, str]:
        """Paths of the pictures of an image, by kind, relative to the folder."""
        if path not in self._names:
            stem = safe_name(Path(path).stem)
            number = self._last.get(stem.lower(), 1)
            while self._is_taken(name := stem if number == 1 else f"{stem}-{number}"):
                number += 1
            self._last[stem.lower()] = number
            self._names[path] = name
            self._taken.add(name.lower())  # some file systems ignore case
        return self._at(self._names[path])

    def _is_taken(self, name: str) -> bool:
        foreign = ((self._folder / place).exists() for place in self._at(name).values())
        return name.lower() in self._taken or any(foreign)

    def _at(self, name: str) -> dict[str, str]:
        return {kind: f"{FOLDERS[kind]}/{name}{end}" for kind, end in self._suffixes.items()}


def safe_name(text: str) -> str:
    """A file name that every file system takes: ASCII letters, digits, ``-`` and ``_``."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-")[:80] or "image"
    return f"image-{name}" if _DEVICE.fullmatch(name) else name


def listed(line: Mapping[str, Any]) -> Iterator[str]:
    """Pictures that a line names, if they are where pictures are put."""
    for kind, folder in FOLDERS.items():
        parts = PurePosixPath(str(line.get(kind, ""))).parts
        if len(parts) == 2 and parts[0] == folder and parts[1] != "..":
            yield "/".join(parts)
