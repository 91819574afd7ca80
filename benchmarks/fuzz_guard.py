"""A guard around a reader: bounds its memory and time, and stops whatever it must not do."""

from __future__ import annotations

import codecs
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flowad_jax.weights import streaming

# As the docstring of `flowad_jax.weights.torch_file` states them.
BYTES_PER_BYTE = 7
BYTES_BESIDE = 500_000_000
SECONDS = 20.0

# What reading a file comes to; every other event that Python's auditing knows is stopped.
_HARMLESS = {"builtins.id", "mmap.__new__", "object.__getattr__", "sys._getframe", "gc.collect"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# What `zipfile` and `pickletools` decode text with, which Python imports when it is first used.
for _codec in ("cp437", "ascii", "latin-1", "utf-8", "raw-unicode-escape", "unicode-escape"):
    codecs.lookup(_codec)

# So does the first progress bar make a lock; the thread that watches over bars is not needed.
tqdm.monitor_interval = 0
streaming.bar(0, "read").close()

_watched: str | None = None
_installed = False


class Stopped(BaseException):
    """The reader did what it must not do; no `except Exception` of the reader catches it."""


def bound(size: int) -> int:
    """Bytes that the reader may hold beside a mapped file of ``size``."""
    return BYTES_PER_BYTE * size + BYTES_BESIDE


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None or event in _HARMLESS:
        return
    if event == "open" and str(arguments[0]) == _watched and not arguments[2] & _WRITING:
        return
    raise Stopped(f"{event} {arguments!r}"[:300])


def _alarm(*_: Any) -> None:
    raise Stopped(f"took more than {SECONDS} s")


@contextlib.contextmanager
def watching(path: Path) -> Iterator[None]:
    """Lets the block do nothing but read ``path``, within `SECONDS`.

    Raises:
      Stopped: it imported, compiled, wrote, started or connected to something, or took too long.
    """
    global _watched, _installed
    if not _installed:  # an audit hook stays for good
        sys.addaudithook(_audit)
        _installed = True
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    _watched = str(path)
    try:
        yield
    finally:
        _watched = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def limited_memory(largest_file: int) -> Iterator[None]:
    """Lets this process map no more than the reader's bound beside what it has mapped."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + largest_file + bound(largest_file), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
