"""One owner of a folder at a time, by a lock that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shlex
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from flowad_jax import files
from flowad_jax.errors import UserError, printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILE = ".lock"  # stays when its owner is gone; only whether it is locked counts
_LONGEST = 4096  # bytes of what an owner says about itself
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

log = logging.getLogger("flowad_jax")


@contextlib.contextmanager
def owning(folder: str | Path) -> Iterator[None]:
    """Keeps a folder, which is created if need be, to this process until the block ends.

    The operating system holds the lock, so that nothing is left of it after SIGKILL or a crash.
    On NFS it reaches processes on other hosts if the server keeps locks, as NFS 4 does; where a
    file system has no locks at all, or the system as Windows has others, a line says so and the
    block runs without.

    Raises:
      UserError: another process has the folder (the message says which), or it cannot be written.
    """
    path = Path(folder).absolute()
    with files.writing(path):
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(path / FILE, _FLAGS, 0o644)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UserError(f"{path / FILE} is no plain file: remove it")
        _acquire(handle, path)
        with contextlib.suppress(OSError):  # a full disk: then others cannot read who has it
            os.truncate(handle, 0)
            about = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
                "command": f"{sys.argv[0]} {shlex.join(sys.argv[1:])}"[: _LONGEST // 16],
            }
            os.write(handle, json.dumps(about).encode())
        yield
    finally:
        os.close(handle)  # which unlocks


def _acquire(handle: int, path: Path) -> None:
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "not on this system")
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{path} is in use by {_owner(handle)}: wait until that ends, or stop it"
        ) from None
    except OSError as error:
        log.warning(
            "cannot lock %s (%s): let no other process write there", path, error.strerror or error
        )


def _owner(handle: int) -> str:
    """What the owner wrote about itself, as far as it can be read."""
    try:
        said = json.loads(os.read(handle, _LONGEST))
        return printable("process {pid} on {host} since {since} ({command})".format(**said))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another process"
