"""A guard around a reader: bounds its memory and time, and stops whatever it must not do."""

import codecs
import contextlib
import os
import resource
import signal
import sys
from pathlib import Path

from tqdm import tqdm

from flowad_jax.weights import streaming, torch_file

# As the docstring of `flowad_jax.weights.torch_file` states them.
BYTES_PER_BYTE = 7
BYTES_BESIDE = 500_000_000
SECONDS = 20.0  # of computing; on a busy machine that is many times as long by the clock
_TIMERS = {signal.SIGPROF: (signal.ITIMER_PROF, 1), signal.SIGALRM: (signal.ITIMER_REAL, 10)}

# What reading a file comes to; every other event that Python's auditing knows is stopped.
_HARMLESS = {"builtins.id", "mmap.__new__", "object.__getattr__", "sys._getframe", "gc.collect"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_watched = None
_installed = False


class Stopped(BaseException):
    """The reader did what it must not do; no `except Exception` of the reader catches it."""


def bound(size):
    """Bytes that the reader may hold beside a mapped file of ``size``."""
    return BYTES_PER_BYTE * size + BYTES_BESIDE


def _audit(event, arguments):
    if _watched is None or event in _HARMLESS:
        return
    if event == "open" and str(arguments[0]) == _watched and not arguments[2] & _WRITING:
        return
    raise Stopped(f"{event} {arguments!r}"[:300])


def _alarm(*_):
    raise Stopped(f"took more than {SECONDS} s")


@contextlib.contextmanager
def watching(path):
    """Lets the block do nothing but read ``path``, within `SECONDS`.

    Raises:
      Stopped: it imported, compiled, wrote, started or connected to something, or took too long.
    """
    global _watched, _installed
    if not _installed:  # an audit hook stays for good
        # What `zipfile` and `pickletools` decode with, which Python imports when it is first used.
        for codec in ("cp437", "ascii", "latin-1", "utf-8", "raw-unicode-escape", "unicode-escape"):
            codecs.lookup(codec)
        # So does the first progress bar make a lock; the thread that watches bars is not needed.
        tqdm.monitor_interval = 0
        streaming.bar(0, "read").close()
        sys.addaudithook(_audit)
        _installed = True
    before = {number: signal.signal(number, _alarm) for number in _TIMERS}
    for timer, times in _TIMERS.values():
        signal.setitimer(timer, times * SECONDS)
    _watched = str(path)
    try:
        yield
    finally:
        _watched = None
        for number, (timer, _) in _TIMERS.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


@contextlib.contextmanager
def limited_memory(largest_file):
    """Lets this process map no more than the reader's bound beside what it has mapped."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + largest_file + bound(largest_file), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def attempt(path):
    """Reads a file under guard.

    Returns:
      "read" and None; "refused" and what made the reader refuse it; or "found" and what it must
      not have raised.
    """
    try:
        with watching(path):
            torch_file.read(path)
    except torch_file.WeightFileError as error:
        cause = error.__cause__
        # The reader says of everything else that the file is damaged.
        suspicious = isinstance(cause, MemoryError | RecursionError | SystemError)
        one_line = error.args[0].isprintable()  # as the reader wrote it: `str` would escape it
        return ("refused", cause) if one_line and not suspicious else ("found", cause or error)
    except (Exception, Stopped) as error:
        return "found", error
    return "read", None
