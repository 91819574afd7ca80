"""Images that arrive in folders, each state of a file judged once, also over several calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flowad_jax.errors import UserError
from flowad_jax.serving import inputs

NAP = 0.1  # seconds between looks at whether to stop


class Identity(NamedTuple):
    """One state of a file: a change of its content changes at least one of these.

    Attributes:
      resolved: where it is, see `inputs.resolved`.
      size: in bytes.
      modified: when it was last written, in nanoseconds.
      inode: number of the file, another one if it was replaced by a file as old and as large.
    """

    resolved: str
    size: int
    modified: int
    inode: int


class _Failed(NamedTuple):
    """An unreadable file: when it was first tried, and when it is to be tried again."""

    since: float
    again: float


def identify(path: Path) -> Identity | None:
    """Returns the identity of a file, or None if it is gone."""
    return _identify(inputs.resolved(path), path)


def check_folders(folders: Sequence[str]) -> None:
    """Raises a UserError unless every input can be watched, which takes a folder."""
    for item in folders:
        if not Path(item).is_dir():
            raise UserError(f"--watch: '{item}' is no folder: give an existing folder to --input")


class Watcher:
    """Finds the images of folders that are complete and were not settled before.

    An image is complete when its identity is that of the look before. Whoever judges it says so by
    `settle`. An unreadable one, which may still be on its way, is tried again for a while.

    Attributes:
      skipped: what lies in the folders and is no image.
    """

    def __init__(
        self,
        folders: Sequence[str],
        leave_out: Path,
        lines: Iterable[Mapping[str, Any]] = (),
        patience: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Takes what is settled already.

        Args:
          folders: where to look, also in the folders inside.
          leave_out: as in `inputs.find`.
          lines: of an earlier call. Those of version 0.1 name the time of modification alone.
          patience: seconds for which unreadable files are tried again.
          clock: time in seconds.
        """
        self._folders, self._leave_out = folders, leave_out
        self._patience, self._clock = patience, clock
        self._before: set[Identity] = set()
        self._failed: dict[Identity, _Failed] = {}
        whole = (line for line in lines if isinstance(line.get("modified"), int))
        self._settled = dict(map(_settled, whole))
        self.skipped: dict[str, Path] = {}

    def look(self) -> list[Path]:
        """Returns the images that are complete and new; call it again after an interval.

        Raises:
          UserError: a folder cannot be listed. One that is gone may come back.
        """
        found = inputs.Found({}, {})
        for folder in self._folders:
            found.add(inputs.look_up(folder, self._leave_out))
        self.skipped.update(found.skipped)
        now = {
            identity: path
            for key, path in found.images.items()
            if (identity := _identify(key, path)) is not None
        }
        self._failed = {one: failed for one, failed in self._failed.items() if one in now}
        before, self._before = self._before, set(now)
        return [path for one, path in now.items() if one in before and self._is_due(one)]

    def settle(self, identity: Identity) -> None:
        """Notes that this state of a file has its line."""
        self._failed.pop(identity, None)
        self._settled[identity.resolved] = identity[1:]

    def is_patient(self, identity: Identity) -> bool:
        """Notes that a file cannot be read; says whether it will be tried again."""
        now = self._clock()
        since = self._failed.get(identity, _Failed(now, now)).since
        # Ever more rarely: a thousand broken files do not slow down the others.
        again = min(now + (now - since), since + self._patience)
        self._failed[identity] = _Failed(since, again)
        return now < since + self._patience

    def _is_due(self, identity: Identity) -> bool:
        if identity in self._failed:
            return self._clock() >= self._failed[identity].again
        known = self._settled.get(identity.resolved, ())
        return not known or any(
            value not in (None, mine) for value, mine in zip(known, identity[1:], strict=True)
        )


def _settled(line: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """Where the file of a line is, and what of its identity the line knows."""
    where = line.get("resolved")
    key = where if isinstance(where, str) else inputs.resolved(Path(line["path"]))
    return key, tuple(line.get(name) for name in Identity._fields[1:])


def _identify(key: str, path: Path) -> Identity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return Identity(key, status.st_size, status.st_mtime_ns, status.st_ino)


def wait(seconds: float, stopped: Callable[[], bool]) -> None:
    """Sleeps in short naps, because a signal does not end a sleep."""
    end = time.monotonic() + seconds
    while not stopped() and (rest := end - time.monotonic()) > 0:
        time.sleep(min(NAP, rest))
