"""A server on this machine that gives one file, in as bad a way as a test wants."""

import contextlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What the server does, and what it was asked for.

    Attributes:
      body: the file.
      ranges: whether it honours Range.
      status: of its answers, 0 for the right one.
      headers: replace the right ones.
      sends: how many bytes it sends before it closes the connection, None for all.
      stalls: whether it then leaves the connection open instead, until `resume`.
      endless: whether it sends the file again and again.
      drips: whether it sends the rest byte by byte, ten a second.
      asked: the Range of every request, None where there was none.
    """

    body: bytes
    ranges: bool = True
    status: int = 0
    headers: dict = field(default_factory=dict)
    sends: int | None = None
    stalls: bool = False
    endless: bool = False
    drips: bool = False
    asked: list = field(default_factory=list)
    resume: threading.Event = field(default_factory=threading.Event)
    root: str = ""


@contextlib.contextmanager
def serving(body):
    """Runs a `FileServer` in a thread."""
    state = FileServer(body)
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.root = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            state.resume.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: FileServer

    def do_GET(self):
        """Answers as the state says."""
        state = self.state
        wanted = self.headers.get("Range")
        state.asked.append(wanted)
        if self.path == "/moved":
            return self._head(302, {"Location": "/file", "Content-Length": "0"})
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and state.ranges else 0
        if start >= len(state.body):
            return self._head(416, {"Content-Range": f"bytes */{len(state.body)}"})
        content = state.body[start:]
        headers = {"Content-Length": str(len(content)), "Content-Type": "application/octet-stream"}
        if start:
            stop = len(state.body)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stop}"
        self._head(state.status or (206 if start else 200), headers | state.headers)
        self.wfile.write(content[: state.sends])
        with contextlib.suppress(OSError):  # until nobody listens
            while state.endless and not state.resume.is_set():
                self.wfile.write(content)
            for byte in content[state.sends or 0 :] if state.drips else b"":
                self.wfile.write(bytes([byte]))
                if state.resume.wait(0.1):
                    break
        if state.stalls:
            self.wfile.flush()
            state.resume.wait(10)

    def _head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args):
        """Is silent."""
