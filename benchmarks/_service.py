"""A running `flowad serve` in a process of its own."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

START = 60.0  # seconds


class Service(NamedTuple):
    """Its process and port."""

    process: subprocess.Popen[bytes]
    port: int

    def connect(self) -> http.client.HTTPConnection:
        """Returns a connection that may be used again."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Sends one request; returns status and content."""
        connection = self.connect()
        headers = {"Content-Type": "application/json"} if body and body[:1] == b"{" else {}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        return answer.status, content

    def memory(self) -> float:
        """Resident memory in MiB (Linux)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmRSS"))
        return int(kilobytes) / 1024


@contextmanager
def serving(bundle: Path, *words: str) -> Iterator[Service]:
    """Serves a bundle until the block ends; the log lies beside it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "flowad_jax", "serve", str(bundle), f"--port={port}", *words]
    with open(bundle.parent / "serve.log", "ab") as log:
        service = Service(subprocess.Popen(command, stderr=log), port)
        try:
            _wait(service)
            yield service
        finally:
            service.process.terminate()
            service.process.wait()


def _wait(service: Service) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and service.process.poll() is None:
        try:
            if service.ask("GET", "/readyz")[0] == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("error: the service does not start; see serve.log")
