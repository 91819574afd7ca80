"""An exchange over http that ends in time and stays with addresses that a user would ask."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import math
import socket
import threading
import time
import urllib.parse
import urllib.request
from typing import Any, cast

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RefusedError(Exception):
    """There is no such file to be had from the address."""


def require_safe(address: str) -> None:
    """Raises a `RefusedError` unless it is https, or http where the host is this machine."""
    parsed = urllib.parse.urlsplit(address)
    local = parsed.scheme == "http" and parsed.hostname in _LOOPBACK
    if parsed.scheme != "https" and not local:
        raise RefusedError(f"{address} is not an https address")


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, as release pages have them, but not to where no user would go.

    That is from https to anything else, and from outside into this machine or a private network,
    where a server could make us ask what it cannot ask itself.
    """

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Looks at the new address first."""
        fp.close()  # or all that comes with the redirection, however long, would be read
        origin = req.full_url
        require_safe(newurl)
        wanted, scheme = (urllib.parse.urlsplit(url).scheme for url in (origin, newurl))
        if wanted == "https" != scheme:
            raise RefusedError(f"{origin} redirects to {newurl}, which is not an https address")
        if _is_inside(newurl) and not _is_inside(origin):
            raise RefusedError(f"{origin} redirects to {newurl}, which is inside a private network")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_inside(address: str) -> bool:
    """Whether a host is this machine or of a private network, by all of its addresses."""
    try:
        found = socket.getaddrinfo(urllib.parse.urlsplit(address).hostname, None)
    except (OSError, UnicodeError):  # a proxy may know the name; without one nothing is fetched
        return False
    ips = (ipaddress.ip_address(entry[4][0]) for entry in found)
    return not all((getattr(ip, "ipv4_mapped", None) or ip).is_global for ip in ips)


class Deadline:
    """Shuts down every connection of an exchange when its time is over.

    The timeout of a socket starts anew with every byte, so that a server can prolong any read
    inside of ``http.client`` and ``ssl`` by sending byte after byte. A connection that is shut down
    from another thread ends that read, as if the server had closed: ask for `passed` afterwards.
    """

    def __init__(self, seconds: float) -> None:
        """Allows so many seconds from now on."""
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._shut_down_all)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        """Starts."""
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops; connections stay with their readers."""
        self._timer.cancel()
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def opener(self) -> urllib.request.OpenerDirector:
        """Opens addresses over watched connections and looks at redirections first."""
        return urllib.request.build_opener(Redirects, _Handler(self))

    @property
    def left(self) -> float:
        """The seconds that are left, above 0."""
        return max(1e-3, self._until - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._until

    def watch(self, connection: socket.socket) -> None:
        """Takes a connection that was just made, before TLS or a proxy speak on it."""
        # A handle of its own: TLS takes the socket over, but shutting down ends the connection.
        handle = connection.dup()
        with self._lock:
            self._connections.append(handle)
            if self.passed:
                _shut_down(handle)

    def _shut_down_all(self) -> None:
        with self._lock:
            for connection in self._connections:
                _shut_down(connection)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the server was first
        connection.shutdown(socket.SHUT_RDWR)


class _Watched(http.client.HTTPConnection):
    """Shows the deadline every socket as soon as it is connected."""

    def __init__(self, *args: Any, deadline: Deadline, **options: Any) -> None:
        self._deadline = deadline
        super().__init__(*args, **options)
        self.timeout = min(self.timeout or math.inf, deadline.left)  # there is no socket yet

    def __setattr__(self, name: str, value: Any) -> None:
        # `connect` would be too late: it returns after the answer of a proxy and after TLS.
        if name == "sock" and value is not None:
            self._deadline.watch(value)
        super().__setattr__(name, value)


class _WatchedTLS(_Watched, http.client.HTTPSConnection):
    pass


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(cast(Any, _Watched), request, deadline=self._deadline)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(cast(Any, _WatchedTLS), request, deadline=self._deadline)
