"""Ctrl-C and SIGTERM ask the loop to save and stop; they never cut it in the middle."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowad_jax.detector.checkpoint import Position


class Interrupted(Exception):
    """A run stopped on request after saving its state; the same command resumes it.

    Attributes:
      exit_code: 128 + the signal, as shells report a process that a signal ended.
    """

    def __init__(self, signum: int, position: Position, path: Path):
        """Says which signal came, where the run stood, and its workdir."""
        name = signal.Signals(signum).name
        super().__init__(
            f"{name}: saved at epoch {position.epoch}, batch {position.batch} in {path}; "
            "the same command resumes"
        )
        self.exit_code = 128 + signum


class Signals:
    """While open, remembers the first signal; a second one has its usual effect.

    Attributes:
      received: number of the signal, or 0.
    """

    def __init__(self) -> None:
        """Nothing received yet."""
        self.received = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        """Installs the handlers; outside the main thread signals stay as they are."""
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        """Puts the earlier handlers back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        self.__exit__()
