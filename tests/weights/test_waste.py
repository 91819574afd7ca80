"""The documented bound of memory: 7 bytes for each of the file, and 0.5 GB for what it builds."""

import struct
import time
import tracemalloc

import pytest

from flowad_jax.weights import torch_file, unpickler
from tests.weights import craft, waste

OPERATIONS = 50_000
# Of 0.5 GB, with a reserve of one half for what the allocator adds.
BYTES_PER_OPERATION = 125


@pytest.fixture(params=["zip", "legacy"])
def peak(request, tmp_path):
    """Writes a body in a format, reads it, and returns the most bytes held and the file's own."""
    path = tmp_path / "waste.pth"

    def measure(body, foreign=True):
        if request.param == "zip":
            craft.zip_file(path, body, {"s": waste.STORED.tobytes()})
        else:
            craft.legacy_file(path, body, {"s": waste.STORED})
        message = ""
        tracemalloc.start()
        try:
            torch_file.read(path, foreign=foreign)
        except torch_file.WeightFileError as error:
            message = str(error)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "damaged" not in message  # else the case would not do what it is for
        return most, path.stat().st_size

    return measure


@pytest.mark.parametrize("name", waste.CASES)
def test_operations(peak, monkeypatch, name):
    monkeypatch.setattr(unpickler, "MAX_OPERATIONS", OPERATIONS)
    most, size = peak(waste.body(name, OPERATIONS), foreign=name in waste.FOREIGN)
    assert most < 7 * size + BYTES_PER_OPERATION * OPERATIONS


def test_the_five_pickles_of_a_legacy_file_share_what_they_may_do(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(unpickler, "MAX_OPERATIONS", 10_000)
    keys = [[]] * 5_000
    refused(craft.legacy_file(tmp_path / "a.pth", b"N" * 6_000, keys=keys), "more than 10000")


TEXT = "a" * 2_000_000 + "\U0001f600"  # four bytes for a letter because of the last
PYTHON2 = b"T" + struct.pack("<i", len(TEXT.encode())) + TEXT.encode()
TEXTS = {
    "text": craft.text(TEXT),
    "text of Python 2": PYTHON2,
    "name": craft.text(TEXT) + craft.text("x") + b"\x93",
    "key": b"}" + craft.text(TEXT) + b"Ns",
    "storage": craft.many(
        craft.text("storage"), craft.named("torch", "FloatStorage"), craft.text(TEXT), b"NK\x06"
    )
    + b"Q",
    "state": craft.named("torch", "device") + b")R" + craft.text(TEXT) + b"b",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(peak, name):
    most, size = peak(TEXTS[name])
    assert most < 7.1 * size


LONG = craft.text("x" * 100_000)
FLOATS = craft.named("torch", "FloatStorage")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"}" + LONG + b"Ns", "dict key"),
        (
            craft.many(craft.text("storage"), FLOATS, LONG, b"N", b"K\x06") + b"Q",
            "asks for storage",
        ),
    ],
)
def test_long_names_are_not_compared_again_and_again(tmp_path, refused, body, word):
    refused(craft.zip_file(tmp_path / "a.pth", body), word, "xxx")


def test_extra_fields_of_zip_entries(tmp_path, refused):
    path = craft.zip_file(tmp_path / "a.pth", b"}")
    content = path.read_bytes()
    at, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    extra = struct.pack("<HH", 9, 0) * 16_000
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *[0] * 9, 1, len(extra), *[0] * 5)
    directory = content[at:end] + (entry + b"x" + extra) * 200
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 203, 203, len(directory), at, 0)
    path.write_bytes(content[:at] + directory + tail)
    start = time.process_time()
    refused(path, "extras")
    assert time.process_time() - start < 1
