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
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

import flowad_jax
from flowad_jax.errors import UserError
from flowad_jax.files import writing
from flowad_jax.weights import addresses, store

OVERLAP = 1 << 16  # bytes of a part that are compared before it goes on
_PIECE = 1 << 17  # bytes per read: little is lost when a slow connection is interrupted
_TIMEOUT = 30.0  # seconds without an answer or a byte
_DEADLINE = 6 * 3600.0  # seconds for all bytes of one call; the next call goes on
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


def download(address: str, path: Path, file: str, megabytes: float = 10_000.0) -> str:
    """Downloads a file that is not there yet; a progress bar is shown on a terminal.

    Args:
      address: https, or http where the host is this machine.
      path: where it is to be; its folder is made.
      file: its published name; a hash at its end has to be true.
      megabytes: its published size; what is clearly larger is not kept.

    Returns:
      The file's SHA-256 in hexadecimal.

    Raises:
      UserError: it cannot be had or written, or is not what its name promises. One line.
      KeyboardInterrupt: with a message that says what is left.
    """
    part = part_of(path)
    try:
        with writing(part):
            part.parent.mkdir(parents=True, exist_ok=True)
        _transfer(address, part, file, megabytes)
    except addresses.RefusedError as error:
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
    digest = _checked(part, address, file)
    with writing(path):
        os.replace(part, path)
    return digest


def require_hash(path: Path, file: str, remedy: str) -> str:
    """Returns a file's SHA-256 where it is the one that the published name promises, if any does.

    Raises:
      UserError: it is not; the message has both and ends in ``remedy``.
    """
    promised, found = store.promised_hash(file), store.sha256(path)
    if promised and not found.startswith(promised):
        raise UserError(
            f"{path}: the name {file} promises SHA-256 {promised}..., its content has {found}; "
            f"{remedy}"
        )
    return found


def _checked(part: Path, address: str, file: str) -> str:
    try:
        remedy = f"it is deleted; run the same command again, or look at {address}"
        return require_hash(part, file, remedy)
    except UserError:
        part.unlink()
        raise


def _transfer(address: str, part: Path, file: str, megabytes: float) -> None:
    """Completes a part."""
    until, most = time.monotonic() + _DEADLINE, int(megabytes * _TOLERANCE * 1e6)
    size = part.stat().st_size if part.exists() else 0
    start = max(0, size - OVERLAP)
    with contextlib.ExitStack() as stack:
        response = stack.enter_context(_connect(address, start))
        total = _length(response)
        if response.status == 206:
            total = _total_if_it_fits(response, part, start, size, until)
            if total is None:
                response = stack.enter_context(_connect(address, 0))
        if response.status == 200:  # the whole file, asked for or not
            size, total = 0, _length(response)
        if total is not None and total > most:
            raise _TooLargeError(f"{total / 1e6:.1f} MB")
        _append(_pieces(response, until), part, size, total, file, most)


def _connect(address: str, start: int) -> Any:
    """Asks for the bytes from ``start`` on, and for all of them if the file ends before.

    Returns:
      A response of status 200, or 206 if ``start`` is not 0.

    Raises:
      addresses.RefusedError: no server, or it does not give the file.
    """
    headers = {"User-Agent": f"flowad_jax/{flowad_jax.__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        addresses.require_safe(address)
        request = urllib.request.Request(address, headers=headers)
        response = urllib.request.build_opener(addresses.Redirects).open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # the part is longer than the file
            return _connect(address, 0)
        raise addresses.RefusedError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise addresses.RefusedError(_reason(error)) from error
    if response.status not in ((200, 206) if start else (200,)):
        _refuse(response, f"answered with HTTP {response.status}")
    if response.headers.get_content_type() == "text/html":  # of a proxy or a hot spot
        _refuse(response, "answered with a web page")
    return response


def _refuse(response: Any, reason: str) -> NoReturn:
    response.close()
    raise addresses.RefusedError(reason)


def _length(response: Any) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(_NUMBER, length) else None


def _total_if_it_fits(response: Any, part: Path, start: int, size: int, until: float) -> int | None:
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
    come = b"".join(_pieces(response, until, len(there)))
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


def _pieces(response: Any, until: float, limit: int | None = None) -> Iterator[bytes]:
    """Yields an answer, or its next ``limit`` bytes; ends early where the server does."""
    while limit is None or limit > 0:
        wanted, piece = _PIECE if limit is None else min(_PIECE, limit), bytearray()
        try:
            # Not `read`, which would wait for all of a piece, however slowly it comes.
            while len(piece) < wanted and (some := response.read1(wanted - len(piece))):
                piece += some
                if time.monotonic() > until:
                    raise _BrokenOff(f"it took more than {_DEADLINE / 3600:g} hours")
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


def _left(part: Path) -> str:
    size = part.stat().st_size if part.exists() else 0
    return f"{part} keeps {size / 1e6:.1f} MB" if size else "nothing has come yet"
