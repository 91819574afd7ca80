"""A download that another process or absurd headers disturb: right, or one line."""

from pathlib import Path

import pytest

from flowad_jax.weights import download
from tests.weights.test_download import (  # noqa: F401, fixtures
    BODY,
    DIGEST,
    OTHER,
    PART,
    PLAIN,
    contents,
    get,
    refused,
    server,
)


def append(part):
    with part.open("ab") as file:
        file.write(OTHER[:9])


@pytest.mark.parametrize("other", [append, Path.unlink])
def test_two_downloads_of_one_file_do_not_mix(refused, get, tmp_path, monkeypatch, other):  # noqa: F811
    pieces = download._pieces

    def interrupted(*args):
        for number, piece in enumerate(pieces(*args)):
            yield piece
            if number == 0:
                other(tmp_path / f"{PLAIN}.part")

    monkeypatch.setattr(download, "_pieces", interrupted)
    assert "broke off (another process writes there, too)" in refused(PART)
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    assert get() == DIGEST


@pytest.mark.parametrize("name", ["Content-Length", "Content-Range"])
def test_lengths_of_thousands_of_digits(get, server, tmp_path, name):  # noqa: F811
    """Python makes no number of them."""
    number = "9" * 5000
    server.headers = {name: number if name == "Content-Length" else f"bytes 0-{number}/{number}"}
    assert get(PART if name == "Content-Range" else None) == DIGEST
    assert contents(tmp_path) == {PLAIN: BODY}
