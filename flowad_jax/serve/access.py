"""Who may ask, how much they may send, and how long they may take to send it (ASGI middleware)."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flowad_jax.serve import logs
from flowad_jax.serve.metrics import Metrics

OPEN = ("/healthz", "/readyz")  # what needs no token, as do the files of the page
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


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
    """A request is not answered: status, reason for the metrics, and one line."""

    def __init__(self, status: int, reason: str, message: str):
        """Keeps all three."""
        super().__init__(message)
        self.status, self.reason = status, reason


class Guard:
    """Wraps an application."""

    def __init__(self, app: Any, limits: Limits, metrics: Metrics, open_paths: tuple[str, ...]):
        """Takes the application, and paths that need no token."""
        self._app, self._limits, self._metrics = app, limits, metrics
        self._open = (*OPEN, *open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it, and logs it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, request = time.perf_counter(), [0], uuid.uuid4().hex[:12]

        async def answer(message: dict[str, Any]) -> None:
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
            await self._app(scope, self._limited(receive), answer)
        except Refusal as refusal:
            self._metrics.refused.labels(refusal.reason).inc()
            if not status[0]:
                await _refuse(answer, refusal)
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
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if self._limits.hosts and host not in self._limits.hosts:
            raise Refusal(403, "host", f"this service is not called '{host}'")
        origin = headers.get("origin")
        is_other = origin is not None and urlsplit(origin).netloc != headers.get("host")
        if is_other or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise Refusal(403, "origin", "requests of other sites are refused")
        if self._limits.token is not None and scope["path"] not in self._open:
            given = headers.get("authorization", "").removeprefix("Bearer ").strip()
            if not hmac.compare_digest(given.encode(), self._limits.token.encode()):
                raise Refusal(401, "token", "a token is needed: Authorization: Bearer TOKEN")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._limits.max_bytes:
            raise self._too_large()

    def _limited(self, receive: Receive) -> Receive:
        """Counts bytes and seconds until the body is there."""
        seen, end, is_whole = 0, time.monotonic() + self._limits.timeout, False

        async def limited() -> dict[str, Any]:
            nonlocal seen, is_whole
            if is_whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                seconds = f"{self._limits.timeout:g}"
                raise Refusal(408, "slow", f"the body took more than {seconds} seconds") from None
            seen += len(message.get("body", b""))
            if seen > self._limits.max_bytes:
                raise self._too_large()
            is_whole = not message.get("more_body", False)
            return message

        return limited

    def _too_large(self) -> Refusal:
        most = f"{self._limits.max_bytes:,}"
        return Refusal(413, "bytes", f"the body has more than {most} bytes: send fewer images")


async def _refuse(send: Send, refusal: Refusal) -> None:
    body = json.dumps({"error": str(refusal)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what is left of the body is not read
    ]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
