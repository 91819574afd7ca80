"""Starts the service and ends it without losing a request."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from flowad_jax.errors import UserError
from flowad_jax.serve import app, logs
from flowad_jax.serve.access import LOOPBACK, Limits
from flowad_jax.serve.camera import Camera, Rounds
from flowad_jax.serve.metrics import Metrics
from flowad_jax.serve.served import LOOK, Served, ServeOptions, name_of

HEAD, GRACE = 10, 30  # seconds: for the head of a request; for running ones at the end


class ServerOptions(NamedTuple):
    """Where the service listens and what it takes; the flags of ``flowad serve`` explain it."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    max_bytes: int = 64 * 2**20
    timeout: float = 30.0
    cameras: Mapping[str, str] = {}


def run(paths: Sequence[str], serve: ServeOptions, options: ServerOptions) -> None:
    """Serves detectors until a signal ends it.

    Raises:
      UserError: a detector cannot be loaded, two have one name, or the service would be open to
        others without a token.
    """
    if options.host not in LOOPBACK and options.token is None:
        raise UserError(
            f"--host={options.host}: others could use the service: give a token by --token_file"
        )
    names = [name_of(path) for path in paths]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"two detectors are called '{min(twice)}': rename one, or link to it")
    if unknown := set(options.cameras) - set(names):
        raise UserError(f"--watch: there is no detector '{min(unknown)}': {', '.join(names)}")
    listening = listen(options.host, options.port)
    logs.set_up()
    metrics = Metrics()
    served = {name_of(path): Served(path, serve, metrics) for path in paths}
    cameras = [Camera(served[name], Path(x)) for name, x in options.cameras.items()]
    helpers: list[Camera | Rounds] = [*cameras, Rounds(list(served.values()), LOOK)]

    def start() -> None:
        for helper in helpers:
            helper.start()
        address = f"http://{options.host}:{options.port}"
        logs.event("started", address=address, detectors=names)

    def end() -> None:
        for helper in helpers:
            helper.stop()
        for one in served.values():
            one.close()
        logs.event("ended")

    hosts = LOOPBACK if options.host in LOOPBACK else ()
    limits = Limits(options.max_bytes, options.timeout, options.token, hosts)
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn ends in order, and then would have the signal do what it did before.
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app.create(served, limits, metrics, start, end),
        http=PatientProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        log_level=logging.WARNING,
    )
    with listening as address:
        uvicorn.Server(config).run([address])


def listen(host: str, port: int) -> socket.socket:
    """Takes a port; a `UserError` if it is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise UserError(f"--port={port}: cannot listen at {host}: {error.strerror}") from None
    return found


class PatientProtocol(H11Protocol):
    """Lets a connection go whose client does not come to the end of the head of a request."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._rest()
        elif self._timer is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._rest()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(HEAD, self.transport.close)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
