"""Downloads files over https: what broke off goes on, and only a complete file gets its name.

A download ends at the published size and after a time that is stated, whatever the server sends.
What has come lies in ``<file>.part``. A server is asked for the rest and for the last bytes of the
part once more: unless these agree, the part is of another version of the file and is dropped.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flowad_jax.errors import UserError
from flowad_jax.files import writing
from flowad_jax.version import __version__
from flowad_jax.weights import store
from flowad_jax.weights.exchange import Deadline, RefusedError, require_safe

OVERLAP = 1 << 16  # bytes of a part that are compared before it goes on
_PIECE = 1 << 17  # bytes per read: little is lost when a slow connection is interrupted
_TIMEOUT = 30.0  # seconds without an answer or a byte
_SECONDS = 6 * 3600.0  # of one call, from the first connection on; the next call goes on
_NUMBER = r"([0-9]{1,18})"  # more digits are no length, and Python refuses thousands of them
_RANGE = f"bytes {_NUMBER}-{_NUMBER}/{_NUMBER}"
_TOLERANCE = 1.05  # published sizes are rounded


class _BrokenOff(Exception):
    """The connection ended before the file did."""


class _TooLargeError(Exception):
    """What comes is not the published file."""


def part_of(path: Path) -> Path:
    """Where a file lies until it is complete."""
    return path.with_name(f"{path.name}.part")


def download(
    address: str,
    path: Path,
    file: str,
    megabytes: float = 10_000.0,
    seconds: float = _SECONDS,
) -> str:
    """Downloads a file that is not there yet; a progress bar is shown on a terminal.

    Args:
      address: https, or http where the host is this machine.
      path: where it is to be; its folder is made.
      file: its published name; a hash at its end has to be true.
      megabytes: its published size; what is clearly larger is not kept.
      seconds: after which it is broken off, whatever the server does meanwhile.

    Returns:
      The file's SHA-256.

    Raises:
      UserError: it cannot be had or written, or is not what its name promises. One line.
      KeyboardInterrupt: with a message that says what is left.
    """
    part = part_of(path)
    try:
        with writing(part):
            part.parent.mkdir(parents=True, exist_ok=True)
        _transfer(address, part, file, int(megabytes * _TOLERANCE * 1e6), seconds)
    except RefusedError as error:
        raise UserError(
            f"{file} cannot be downloaded ({error}): fetch {address} on any machine with network "
            f"access and put it at {path.absolute()}"
        ) from error
    except _TooLargeError as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{address} gives {error}, but {file} is published with {megabytes:.1f} MB: nothing is "
            "kept; look at the address"
        ) from error
    except _BrokenOff as error:
        raise UserError(
            f"the download of {address} broke off ({error}): {_left(part)}; run the same command "
            f"again, or fetch it on any machine and put it at {path.absolute()}"
        ) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{_left(part)}; run the same command again to go on") from None
    try:
        remedy = f"it is deleted; run the same command again, or look at {address}"
        digest = store.require_hash(part, file, remedy)
    except UserError:
        part.unlink()
        raise
    with writing(path):
        os.replace(part, path)
    return digest


def _left(part: Path) -> str:
    size = part.stat().st_size if part.exists() else 0
    return f"{part} keeps {size / 1e6:.1f} MB" if size else "nothing has come yet"


def _transfer(address: str, part: Path, file: str, most: int, seconds: float) -> None:
    """Completes a part of at most ``most`` bytes within some seconds."""
    with Deadline(seconds) as deadline:
        try:
            _complete(address, part, file, most, deadline)
        except (RefusedError, _BrokenOff):
            if not deadline.passed:
                raise
    if deadline.passed:  # then the end of an answer is not the end of the file
        raise _BrokenOff(f"it took more than {seconds / 3600:g} hours")


def _complete(address: str, part: Path, file: str, most: int, deadline: Deadline) -> None:
    size = part.stat().st_size if part.exists() else 0
    start = max(0, size - OVERLAP)
    with contextlib.ExitStack() as stack:
        response = stack.enter_context(_connect(address, start, deadline))
        total = _length(response)
        if response.status == 206:
            total = _total_if_it_fits(response, part, start, size)
            if total is None:
                response = stack.enter_context(_connect(address, 0, deadline))
        if response.status == 200:  # the whole file, asked for or not
            size, total = 0, _length(response)
        if total is not None and total > most:
            raise _TooLargeError(f"{total / 1e6:.1f} MB")
        _append(_pieces(response), part, size, total, file, most)


def _connect(address: str, start: int, deadline: Deadline) -> Any:
    """Asks for the bytes from ``start`` on, and for all of them if the file ends before.

    The response has status 200, or 206 if ``start`` is not 0.
    """
    headers = {"User-Agent": f"flowad_jax/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        require_safe(address)
        request = urllib.request.Request(address, headers=headers)
        response = deadline.opener().open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # the part is longer than the file
            return _connect(address, 0, deadline)
        raise RefusedError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RefusedError(_reason(error)) from error
    reason = ""
    if response.status not in ((200, 206) if start else (200,)):
        reason = f"answered with HTTP {response.status}"
    elif response.headers.get_content_type() == "text/html":  # of a proxy or a hot spot
        reason = "answered with a web page"
    if reason:
        response.close()
        raise RefusedError(reason)
    return response


def _length(response: Any) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(_NUMBER, length) else None


def _total_if_it_fits(response: Any, part: Path, start: int, size: int) -> int | None:
    """The file's length, if the answer goes on where the part ends and is of the same file.

    Reads what the answer and the part have in common.
    """
    stated = re.fullmatch(_RANGE, response.headers.get("Content-Range", ""))
    if stated is None:
        return None
    first, last, total = map(int, stated.groups())
    if first != start or last != total - 1 or total < size:
        return None
    with open(part, "rb") as file:
        file.seek(start)
        there = file.read()
    come = b"".join(_pieces(response, len(there)))
    if len(come) < len(there):
        raise _BrokenOff("the server closed the connection early")
    return total if come == there else None


def _append(
    pieces: Iterator[bytes], part: Path, size: int, total: int | None, file: str, most: int
) -> None:
    """Writes the rest of an answer behind the first ``size`` bytes of the part."""
    progress = tqdm(
        total=total, initial=size, desc=file, unit="B", unit_scale=True, leave=False, disable=None
    )
    mode = "ab" if size else "wb"
    with progress, writing(part), open(part, mode, opener=_without_waiting) as output:
        for piece in pieces:
            if size + len(piece) > most:
                raise _TooLargeError(f"more than {most / 1e6:.1f} MB")
            output.write(piece)
            size += len(piece)
            progress.update(len(piece))
    if total is not None and size != total:
        raise _BrokenOff("the server closed the connection early")
    if not part.exists() or part.stat().st_size != size:
        raise _BrokenOff("another process writes there, too")


def _without_waiting(path: str, flags: int) -> int:
    """Opens a file; a named pipe of that name is refused where nobody reads it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def _pieces(response: Any, limit: int | None = None) -> Iterator[bytes]:
    """Yields an answer, or its next ``limit`` bytes; ends early where the server does."""
    while limit is None or limit > 0:
        wanted, piece = _PIECE if limit is None else min(_PIECE, limit), bytearray()
        try:
            # Not `read`, which would wait for all of a piece, however slowly it comes.
            while len(piece) < wanted and (some := response.read1(wanted - len(piece))):
                piece += some
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOff(_reason(error)) from error
        if not piece:
            return
        yield bytes(piece)
        limit = limit and limit - len(piece)


def _reason(error: Exception) -> str:
    """The cause in a few words on one line."""
    cause = getattr(error, "reason", error)
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(text.split())
