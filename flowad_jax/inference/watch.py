"""Images that arrive in folders, each state of a file judged once, also over several calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flowad_jax.data.inputs import Found, Identity, identify, look_up, resolved
from flowad_jax.errors import UserError
from flowad_jax.inference.outputs import PredictedImage

NAP = 0.1  # seconds between looks at whether to stop


class _Unreadable(NamedTuple):
    since: float
    again: float  # when it is tried again
    image: PredictedImage


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
          clock: returns the time in seconds.
        """
        self._folders, self._leave_out = folders, leave_out
        self._patience, self._clock = patience, clock
        self._before: set[Identity] = set()
        self._unreadable: dict[Identity, _Unreadable] = {}
        # By place: what else is known of the identity of a file that has its line.
        self._settled: dict[str, tuple[Any, ...]] = {}
        for line in lines:
            if isinstance(line.get("modified"), int):
                where = line.get("resolved")
                key = where if isinstance(where, str) else resolved(Path(line["path"]))
                self._settled[key] = tuple(line.get(name) for name in Identity._fields[1:])
        self.skipped: dict[str, Path] = {}

    def look(self) -> list[Path]:
        """Returns the images that are complete and new; call it again after an interval.

        Raises:
          UserError: a folder cannot be listed. One that is gone may come back.
        """
        found = Found({}, {})
        for folder in self._folders:
            found.add(look_up(folder, self._leave_out))
        self.skipped.update(found.skipped)
        files = {identify(path, key): path for key, path in found.images.items()}
        now = {file: path for file, path in files.items() if file is not None}
        self._unreadable = {file: it for file, it in self._unreadable.items() if file in now}
        before, self._before = self._before, set(now)
        return [path for file, path in now.items() if file in before and self._is_due(file)]

    def settle(self, file: Identity) -> None:
        """Notes that this state of a file has its line."""
        self._unreadable.pop(file, None)
        self._settled[file.resolved] = file[1:]

    def postpone(self, image: PredictedImage) -> bool:
        """Notes that a file cannot be read; returns whether it will be tried again."""
        assert image.file is not None  # one that is gone has changed, and is not reported
        now = self._clock()
        since = self._unreadable[image.file].since if image.file in self._unreadable else now
        # Ever more rarely: a thousand broken files do not slow down the others.
        again = min(now + (now - since), since + self._patience)
        self._unreadable[image.file] = _Unreadable(since, again, image)
        return now < since + self._patience

    def postponed(self) -> list[PredictedImage]:
        """Returns the files that would be tried again and are still there."""
        waiting = (it.image for it in self._unreadable.values())
        return [image for image in waiting if identify(image.path) == image.file]

    def _is_due(self, file: Identity) -> bool:
        if file in self._unreadable:
            return self._clock() >= self._unreadable[file].again
        known = self._settled.get(file.resolved)
        return known is None or any(
            value not in (None, mine) for value, mine in zip(known, file[1:], strict=True)
        )


def wait(seconds: float, stopped: Callable[[], bool]) -> None:
    """Sleeps in short naps, because a signal does not end a sleep."""
    end = time.monotonic() + seconds
    while not stopped() and (rest := end - time.monotonic()) > 0:
        time.sleep(min(NAP, rest))
