"""The service as a process of its own, and requests to it."""

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

START = 120  # seconds on a busy machine


def png(spot=False, size=(20, 30), grey=40):
    """A dark image (H, W), with a bright spot that the stub calls anomalous."""
    pixels = np.full(size, grey, np.uint8)
    if spot:
        pixels[2:12, 5:19] = 250
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Service:
    """A running service; ``url`` is its address."""

    def __init__(self, *words, env=()):
        self.port = free_port()
        command = [sys.executable, "-m", "flowad_jax", "serve", *words, f"--port={self.port}"]
        self._file = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe would be full some time)
        self.process = subprocess.Popen(command, stderr=self._file, env={**os.environ, **dict(env)})
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = ""
        end = time.monotonic() + START
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.get("/readyz")[0] == 200:
                    return
            time.sleep(0.05)
        self.stop(signal.SIGKILL)
        raise AssertionError(self.log)

    def ask(self, method, path, body=None, headers=(), timeout=60):
        """Returns status, headers and content (JSON read) of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.headers.get_content_type() == "application/json":
            content = json.loads(content)
        return answer.status, answer.headers, content

    def get(self, path, **options):
        status, _, content = self.ask("GET", path, **options)
        return status, content

    def post(self, path, body=b"", **options):
        status, _, content = self.ask("POST", path, body, **options)
        return status, content

    def predict(self, body, query="", name="screws", **options):
        return self.post(f"/v1/detectors/{name}/predict{query}", body, **options)

    def form(self, parts, query="", name="screws", boundary="xyz"):
        """Sends several images as a form."""
        lines = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{file}"\r\n'
            f"Content-Type: image/png\r\n\r\n".encode()
            + content
            + b"\r\n"
            for file, content in parts
        ]
        body = b"".join([*lines, f"--{boundary}--\r\n".encode()])
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self.predict(body, query, name, headers=kind)

    def say(self, number, verdict, name="screws"):
        body = json.dumps({"id": number, "verdict": verdict})
        headers = {"Content-Type": "application/json"}
        return self.post(f"/v1/detectors/{name}/verdicts", body, headers=headers)

    def stop(self, number=signal.SIGTERM):
        """Ends it; returns the exit code and keeps the log."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(START)
        if not self._file.closed:
            self._file.seek(0)
            self.log = self._file.read()
            self._file.close()
        return self.process.returncode

    @property
    def events(self):
        """The lines of the log, which are all JSON."""
        return [json.loads(line) for line in self.log.splitlines()]


@contextlib.contextmanager
def running(*words, **options):
    """Starts a service and ends it."""
    service = Service(*map(str, words), **options)
    try:
        yield service
    finally:
        service.stop()
