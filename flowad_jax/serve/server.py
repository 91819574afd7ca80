"""Starts the service and ends it without losing a request."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import uvicorn

from flowad_jax.errors import UserError
from flowad_jax.serve import app, logs
from flowad_jax.serve.access import LOOPBACK, Limits
from flowad_jax.serve.camera import Camera, Rounds
from flowad_jax.serve.metrics import Metrics
from flowad_jax.serve.served import LOOK, Served, ServeOptions, name_of

CONNECTIONS, GRACE = 256, 30  # at once; seconds for running requests when the service ends


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
    uvicorn.run(
        app.create(served, limits, metrics, start, end),
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
        log_level=logging.WARNING,
    )
