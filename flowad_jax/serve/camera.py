"""Folders into which cameras write: what arrives there is judged as if it had been sent."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from pathlib import Path

from flowad_jax.errors import UserError
from flowad_jax.flowad_runtime import UserError as RuntimeUserError
from flowad_jax.flowad_runtime.inputs import Watcher, state_of
from flowad_jax.serve import logs
from flowad_jax.serve.batches import Busy
from flowad_jax.serve.served import Served

INTERVAL, PATIENCE, NAP = 0.5, 30.0, 0.1  # seconds


class Camera:
    """A thread that watches a folder for one detector."""

    def __init__(self, served: Served, folder: Path):
        """Takes both; a `UserError` if the folder is none."""
        self._served, self._folder = served, folder
        try:
            # No output lies among the images.
            self._watcher = Watcher([str(folder)], folder / ".none", PATIENCE)
        except RuntimeUserError as error:
            raise UserError(str(error)) from None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {folder}", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the image at hand."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL):
            try:
                for path in self._watcher.look():
                    if self._stopped.is_set():
                        return
                    self._judge(path)
            except Exception as error:  # a folder that is gone may come back
                logs.event(
                    "watching failed", logging.ERROR, folder=str(self._folder), why=str(error)
                )

    def _judge(self, path: Path) -> None:
        if (state := state_of(path)) is None:
            return
        if self._is_known(path):
            self._watcher.settle(state)
            return
        while True:
            try:
                self._served.batches.admit(1)
                break
            except Busy:  # requests come first
                if self._stopped.wait(NAP):
                    return
        try:
            (found,) = self._served.predict_all([(path, path.name)], ("overlay",))
        finally:
            self._served.batches.leave(1)
        if isinstance(found, UserError):
            if not self._watcher.postpone(state, path, str(found)):
                self._watcher.settle(state)
                logs.event("unreadable", logging.ERROR, path=str(path), why=str(found))
            return
        self._watcher.settle(state)
        seconds = round(found.seconds, 4)
        said = found.prediction.describe()
        logs.event("judged", path=str(path), id=found.id, said=said, seconds=seconds)

    def _is_known(self, path: Path) -> bool:
        """Whether this file was judged before the service was last started."""
        store = self._served.stream.store
        if store is None:
            return False
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return False
        return store.has(self._served.judge.version, digest, path.name)


class Rounds:
    """A thread that looks for newer detectors, and drops pictures that were kept long enough."""

    def __init__(self, served: list[Served], interval: float):
        """Takes the detectors and the seconds between two looks."""
        self._served, self._interval = served, interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rounds", daemon=True)
        self._forgotten = 0.0

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            is_due = time.monotonic() - self._forgotten > 600
            for one in self._served:
                try:
                    one.refresh()
                    if is_due:
                        one.forget()
                except Exception as error:  # the next look may succeed
                    logs.event("look failed", logging.ERROR, detector=one.name, why=str(error))
            self._forgotten = time.monotonic() if is_due else self._forgotten
