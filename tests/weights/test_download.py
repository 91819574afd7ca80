"""Only what is complete and true gets its name, and what broke off goes on."""

import hashlib
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.weights import download
from tests.weights.file_server import serving

BODY = np.random.default_rng(0).bytes(300_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
PART = BODY[:200_000]
OTHER = np.random.default_rng(1).bytes(300_000)
HASHED, PLAIN = f"net-{DIGEST[:8]}.pth", "net.pth"
OVERLAP = download.OVERLAP


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving(BODY) as server:
        yield server


@pytest.fixture
def get(server, tmp_path):
    """Downloads; returns the digest. A part that is given is there already."""

    def run(part=None, file=PLAIN, page="/file", **options):
        if part is not None:
            (tmp_path / f"{file}.part").write_bytes(part)
        return download.download(server.root + page, tmp_path / file, file, **options)

    return run


@pytest.fixture
def refused(get, tmp_path):
    """The one line that a download ends with; nothing has the final name."""

    def run(*args, **kwargs):
        with pytest.raises(UserError) as info:
            get(*args, **kwargs)
        assert "\n" not in str(info.value)
        assert not (tmp_path / PLAIN).exists()
        assert not (tmp_path / HASHED).exists()
        return str(info.value)

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("file", [PLAIN, HASHED])
@pytest.mark.parametrize("headers", [{}, {"Content-Length": None}, {"Content-Length": "9" * 5000}])
def test_a_whole_file(get, server, tmp_path, file, headers):
    server.headers = headers  # Python makes no number of thousands of digits
    assert get(file=file) == DIGEST
    assert contents(tmp_path) == {file: BODY}
    assert server.asked == [None]


@pytest.mark.parametrize("size", [OVERLAP + 1, 200_000, len(BODY)])
@pytest.mark.parametrize("page", ["/file", "/moved"])
def test_a_part_goes_on(get, server, tmp_path, size, page):
    start = size - OVERLAP
    # A beginning that differs shows that these bytes are not fetched again.
    assert get(b"?" + BODY[1:size], page=page) != DIGEST
    assert contents(tmp_path) == {PLAIN: b"?" + BODY[1:]}
    assert set(server.asked) == {f"bytes={start}-"}


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        (b"", {}),
        (BODY[:1000], {}),
        (PART, {"ranges": False}),
        *(
            (PART, {"headers": {"Content-Range": stated}})
            for stated in (
                *(None, "bytes 0-299999/300000", "bytes 134464-200000/300000"),
                *("bytes 134464-299999/*", f"bytes 0-{'9' * 5000}/{'9' * 5000}"),
            )
        ),
        (PART[:-1] + b"?", {}),  # torn
        (OTHER[:200_000], {}),
        (BODY + b"?", {}),
        (BODY + OTHER, {}),
    ],
)
def test_a_part_that_does_not_fit_is_dropped(get, server, tmp_path, part, settings):
    for name, value in settings.items():
        setattr(server, name, value)
    assert get(part) == DIGEST
    assert contents(tmp_path) == {PLAIN: BODY}
    assert server.asked[-1] is None or not server.ranges


def test_a_wrong_hash_leaves_nothing(refused, server, tmp_path):
    server.body = OTHER
    message = refused(file=HASHED)
    assert DIGEST[:8] in message
    assert hashlib.sha256(OTHER).hexdigest() in message
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"status": 404}, "HTTP 404 Not Found"),
        ({"status": 204}, "HTTP 204"),
        ({"headers": {"Content-Type": "text/html; charset=utf-8"}}, "a web page"),
        ({"status": 302, "headers": {"Location": "http://example.org/x"}}, "not an https"),
        ({"status": 302, "headers": {"Location": "file:///x"}}, "not allowed"),
    ],
)
def test_a_refusal_says_which_file_goes_where(
    refused, server, tmp_path, monkeypatch, settings, reason
):
    monkeypatch.chdir(tmp_path)
    for name, value in settings.items():
        setattr(server, name, value)
    message = refused(PART)
    assert reason in message
    assert f"fetch {server.root}/file on any machine" in message
    assert message.endswith(f"put it at {tmp_path / PLAIN}")
    assert contents(tmp_path) == {f"{PLAIN}.part": PART}
    with pytest.raises(UserError, match=str(tmp_path / PLAIN)):  # a relative place in full
        download.download(f"{server.root}/file", Path(PLAIN), PLAIN)


@pytest.mark.parametrize(
    "address", ["http://example.org/x", "ftp://localhost/x", "file:///x", "x", "http://["]
)
def test_only_https_is_asked(tmp_path, address):
    with pytest.raises(UserError, match=r"is not an https address|Invalid IPv6 URL"):
        download.download(address, tmp_path / PLAIN, PLAIN)


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/file"
    with pytest.raises(UserError, match=r"net\.pth cannot be downloaded \(Connection refused\)"):
        download.download(address, tmp_path / PLAIN, PLAIN)


def test_a_server_that_closes_early_can_be_asked_again(get, refused, server, tmp_path):
    server.sends = 150_000
    message = refused()
    assert "closed the connection early" in message
    assert "keeps 0.1 MB; run the same command again" in message
    assert contents(tmp_path) == {f"{PLAIN}.part": BODY[:150_000]}
    server.sends = 1000  # less than what is compared
    assert "closed the connection early" in refused()
    assert contents(tmp_path) == {f"{PLAIN}.part": BODY[:150_000]}
    server.sends = None
    assert get() == DIGEST
    assert server.asked == [None, *[f"bytes={150_000 - OVERLAP}-"] * 2]


def test_a_server_that_falls_silent(refused, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    server.sends, server.stalls = 2 * download._PIECE, True
    assert "broke off (timed out)" in refused()
    assert contents(tmp_path) == {f"{PLAIN}.part": BODY[: server.sends]}


@pytest.mark.parametrize("headers", [{"Content-Length": None}, {"Content-Length": "99999999999"}])
def test_a_server_that_does_not_stop(get, refused, server, tmp_path, headers):
    server.headers, server.endless = headers, True
    assert "net.pth is published with 0.3 MB: nothing is kept" in refused(megabytes=0.3)
    assert contents(tmp_path) == {}
    server.headers, server.endless = {}, False
    assert get(megabytes=0.3) == DIGEST


def test_no_more_than_the_published_size_is_ever_written(refused, server, tmp_path, monkeypatch):
    sizes = []

    class Watched(download.tqdm):
        def update(self, n=1):
            sizes.append((tmp_path / f"{PLAIN}.part").stat().st_size)

    monkeypatch.setattr(download, "tqdm", Watched)
    server.headers, server.endless = {"Content-Length": None}, True
    assert "more than 5" in refused(megabytes=5)
    assert 4e6 < max(sizes) < 1.05 * 5e6


def test_a_server_that_drips_meets_the_deadline(get, refused, server, tmp_path):
    server.sends, server.drips = 2 * download._PIECE, True
    start = time.monotonic()
    message = refused(seconds=0.5)
    assert "it took more than" in message
    assert "run the same command again" in message
    assert time.monotonic() - start < 2
    kept = (tmp_path / f"{PLAIN}.part").read_bytes()
    assert len(kept) >= server.sends
    assert BODY.startswith(kept)
    server.sends, server.drips = None, False
    assert get() == DIGEST


def append(part):
    with part.open("ab") as file:
        file.write(OTHER[:9])


@pytest.mark.parametrize("other", [append, Path.unlink])
def test_two_downloads_of_one_file_do_not_mix(refused, get, tmp_path, monkeypatch, other):
    pieces = download._pieces

    def interrupted(*args):
        for number, piece in enumerate(pieces(*args)):
            yield piece
            if number == 0:
                other(tmp_path / f"{PLAIN}.part")

    monkeypatch.setattr(download, "_pieces", interrupted)
    assert "broke off (another process writes there, too)" in refused(PART)
    monkeypatch.setattr(download, "_pieces", pieces)
    assert get() == DIGEST


def test_an_interrupt_keeps_the_part(get, tmp_path, monkeypatch):
    class Impatient(download.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    monkeypatch.setattr(download, "tqdm", Impatient)
    with pytest.raises(KeyboardInterrupt, match=r"net\.pth\.part keeps 0\.1 MB; run the same"):
        get()
    assert contents(tmp_path) == {f"{PLAIN}.part": BODY[: download._PIECE]}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize(
    ("place", "message"),
    [
        (os.mkfifo, "cannot write"),  # nobody reads it, and it is not waited for
        (lambda part: part.symlink_to("/dev/full"), "No space left on device; free some space"),
    ],
    ids=["named pipe", "full disk"],
)
def test_a_part_that_cannot_be_written(refused, tmp_path, place, message):
    place(tmp_path / f"{PLAIN}.part")
    assert message in refused()
