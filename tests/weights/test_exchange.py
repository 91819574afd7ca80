"""Where a server may send a request, and that an exchange ends in time, however slow its bytes."""

import contextlib
import io
import socket
import threading
import time
import urllib.request

import pytest

from flowad_jax.errors import UserError
from flowad_jax.weights import download, exchange

PUBLIC = "https://example.org/x"
REDIRECTS = {
    (PUBLIC, "http://localhost:8000/x"): "not an https address",
    (PUBLIC, "http://127.0.0.1/x"): "not an https address",
    (PUBLIC, "http://example.org/x"): "not an https address",
    **{
        (PUBLIC, f"https://{host}/x"): "inside a private network"
        for host in (
            *("localhost", "LOCALHOST", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0"),
            *("10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
            *("[::1]", "[::ffff:127.0.0.1]", "[fe80::1]", "[fc00::1]", "user@127.0.0.1:443"),
            "inside.example.org",
        )
    },
    (PUBLIC, "https://8.8.8.8/x"): "",
    (PUBLIC, "HTTPS://8.8.8.8/x"): "",
    (PUBLIC, "https://[2001:4860:4860::8888]/x"): "",
    (PUBLIC, "https://example.net/x"): "",
    ("http://127.0.0.1:1/x", "http://localhost:2/x"): "",
    ("http://127.0.0.1:1/x", PUBLIC): "",
    ("https://inside.example.org/x", "https://10.0.0.1/x"): "",
}


@pytest.mark.parametrize(("origin", "target"), REDIRECTS)
def test_where_a_server_may_send_a_request(monkeypatch, origin, target):
    names = {"example.org": "8.8.8.8", "example.net": "8.8.4.4", "inside.example.org": "10.9.9.9"}
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port: resolve(names.get(host, host), port)
    )
    request, opened = urllib.request.Request(origin), io.BytesIO()
    handler = urllib.request.build_opener(exchange.Redirects).handle_error["http"][302][0]

    def follow():
        return handler.redirect_request(request, opened, 302, "Found", {}, target)

    if reason := REDIRECTS[origin, target]:
        with pytest.raises(exchange.RefusedError, match=reason):
            follow()
        assert opened.closed
    else:
        assert follow().full_url == target


SECONDS = 0.4
HEAD = b"HTTP/1.1 200 OK\r\n"
TLS_RECORD = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"  # of 16 kB, the beginning of a ServerHello
DRIPPING = {
    "status": (b"", b"HTTP/1.1 200 OK" + b" " * 100),
    "one header": (HEAD, b"X-Header: y" + b"y" * 100),
    "headers": (HEAD, b"X: y\r\n"),
    "continue": (b"", b"HTTP/1.1 100 \r\n\r\n"),
    "body": (HEAD + b"\r\n", b"x"),  # without length: its end is no end of the file
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "handshake": (TLS_RECORD, b"x"),
    "proxy": (HEAD, b"X: y" + b"y" * 100),
    "redirection": None,
}


@pytest.fixture
def dripping(monkeypatch):
    """Gives the port of a server that sends a beginning at once, the rest 20 bytes a second.

    It closes after 3 seconds, so that what waits for it ends, too late.
    """
    monkeypatch.setenv("no_proxy", "*")
    stopped = threading.Event()
    with contextlib.ExitStack() as held:

        def start(beginning, rest=b"x"):
            listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=answer, args=(listener, beginning, rest))
            held.callback(thread.join)
            thread.start()
            return listener.getsockname()[1]

        def answer(listener, beginning, rest):
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(4096)
                connection.sendall(beginning)
                for number in range(60):
                    connection.sendall(rest[number % len(rest) :][:1])
                    if stopped.wait(0.05):
                        break

        held.callback(stopped.set)
        yield start


def moved(port):
    """A redirection to a server, whose own content does not end."""
    return f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/file\r\n\r\n".encode()


@pytest.mark.parametrize("what", DRIPPING)
def test_the_deadline_covers_every_part_of_an_exchange(dripping, tmp_path, monkeypatch, what):
    if what == "redirection":
        port = dripping(moved(dripping(HEAD, b"X: y")))
    else:
        port = dripping(*DRIPPING[what])
    address = f"{'https' if what == 'handshake' else 'http'}://127.0.0.1:{port}/file"
    if what == "proxy":
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        address = "https://example.org/file"
    path, start = tmp_path / "net.pth", time.monotonic()
    with pytest.raises(UserError) as caught:
        download.download(address, path, "net.pth", seconds=SECONDS)
    assert SECONDS <= time.monotonic() - start < SECONDS + 1
    message = str(caught.value)
    assert "\n" not in message
    assert f"download of {address} broke off (it took more than" in message
    assert "run the same command again" in message
    assert not path.exists()


def test_what_comes_with_a_redirection_is_not_read(dripping, tmp_path):
    port = dripping(moved(dripping(HEAD + b"Content-Type: text/html\r\n\r\n")))
    start = time.monotonic()
    with pytest.raises(UserError, match="answered with a web page"):
        download.download(f"http://127.0.0.1:{port}/moved", tmp_path / "net.pth", "net.pth")
    assert time.monotonic() - start < 1


def test_the_limit_leaves_no_thread_behind(dripping, tmp_path):
    port, path = dripping(HEAD + b"Content-Length: 3\r\n\r\nabc"), tmp_path / "net.pth"
    download.download(f"http://127.0.0.1:{port}/file", path, "net.pth", seconds=60)
    assert path.read_bytes() == b"abc"
    deadline = time.monotonic() + 2
    while any(isinstance(thread, threading.Timer) for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
