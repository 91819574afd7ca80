"""Who may ask, how much they may send, and how long they may take to send it (ASGI middleware)."""

from __future__ import annotations

import asyncio
import hmac
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse

from flowad_jax.errors import printable
from flowad_jax.serve import logs
from flowad_jax.serve.metrics import Metrics

OPEN = ("/healthz", "/readyz")  # what needs no token, as do the files of the page
LOOPBACK = ("127.0.0.1", "localhost", "::1")
REQUESTS = 256  # at once

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


class Limits(NamedTuple):
    """What a request must keep.

    Attributes:
      max_bytes: of its body.
      timeout: seconds until its body is there.
      token: that it has to bring; None for no token.
      hosts: names by which the service may be called; empty for any.
    """

    max_bytes: int
    timeout: float
    token: str | None
    hosts: tuple[str, ...]


class Refusal(Exception):
    """A request is not answered: a status and one line."""

    def __init__(self, status: int, message: str):
        """Keeps both."""
        super().__init__(message)
        self.status = status


class Guard:
    """Wraps an application."""

    def __init__(self, app: Any, limits: Limits, metrics: Metrics, open_paths: tuple[str, ...]):
        """Takes the application, and paths that need no token."""
        self._app, self._limits, self._metrics = app, limits, metrics
        self._open = (*OPEN, *open_paths)
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it, and logs it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._running += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self._running -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status, request = time.perf_counter(), [0], uuid.uuid4().hex[:12]

        async def send_on(message: Scope) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, self._limited(receive), send_on)
        except Refusal as refusal:  # others are raised while a body is read, see `answer`
            await refused(refusal)(scope, receive, send_on)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route).observe(seconds)
            if scope["path"] not in (*OPEN, "/metrics"):
                logs.event(
                    "request",
                    id=request,
                    method=scope["method"],
                    path=scope["path"],
                    status=status[0],
                    seconds=round(seconds, 4),
                )

    def _check(self, scope: Scope) -> None:
        if self._running > REQUESTS:
            raise self._refusal(503, "busy", "too many requests at once: try again later")
        headers = {key.decode("latin-1"): x.decode("latin-1") for key, x in scope["headers"]}
        try:
            self._check_origin(headers)
        except ValueError:  # what is no address
            raise self._refusal(403, "host", "Host or Origin is no address") from None
        if self._limits.token is not None and scope["path"] not in self._open:
            given = dict(scope["headers"]).get(b"authorization", b"")
            wanted = b"Bearer " + self._limits.token.encode()
            if not hmac.compare_digest(given.strip(), wanted):
                raise self._refusal(401, "token", "a token is needed: Authorization: Bearer TOKEN")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._limits.max_bytes:
            raise self._too_large()

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if self._limits.hosts and host not in self._limits.hosts:
            raise self._refusal(403, "host", f"this service is not called '{printable(host)}'")
        origin = headers.get("origin")
        is_other = origin is not None and urlsplit(origin).netloc != headers.get("host")
        if is_other or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise self._refusal(403, "origin", "requests of other sites are refused")

    def _limited(self, receive: Receive) -> Receive:
        """Counts bytes and seconds until the body is there."""
        seen, end, is_whole = 0, time.monotonic() + self._limits.timeout, False

        async def limited() -> Scope:
            nonlocal seen, is_whole
            if is_whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                what = f"the body took more than {self._limits.timeout:g} seconds"
                raise self._refusal(408, "slow", what) from None
            seen += len(message.get("body", b""))
            if seen > self._limits.max_bytes:
                raise self._too_large()
            is_whole = not message.get("more_body", False)
            return message

        return limited

    def _too_large(self) -> Refusal:
        what = f"the body has more than {self._limits.max_bytes:,} bytes: send fewer images"
        return self._refusal(413, "bytes", what)

    def _refusal(self, status: int, reason: str, message: str) -> Refusal:
        self._metrics.refused.labels(reason).inc()
        return Refusal(status, message)


def refused(refusal: Refusal) -> JSONResponse:
    """The answer to a request that is refused; what is left of its body is not read."""
    headers = {"connection": "close"}
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": str(refusal)}, refusal.status, headers)


async def answer(request: Request, error: Any) -> JSONResponse:
    """The same as a handler of exceptions."""
    return refused(error)
