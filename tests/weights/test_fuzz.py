"""A short run of `benchmarks/fuzz_reader.py`, and that it would notice a reader that does harm."""

import os
import socket
import subprocess
import sys
import time

import pytest

from benchmarks import fuzz_files, fuzz_guard, fuzz_reader
from flowad_jax.weights import torch_file

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]
FILES = 2000


def test_damaged_files_are_read_or_refused(tmp_path):
    fuzzer = fuzz_reader.Fuzzer(fuzz_files.crafted(), seed=0, keep=tmp_path / "kept")
    fuzzer.run(range(FILES))
    assert fuzzer.findings == []
    assert fuzzer.counts["files"] == FILES
    # Enough of either, or the changes would be too weak or too strong to show anything.
    for mode in ("strict", "foreign"):
        assert fuzzer.counts[f"read, {mode}"] + fuzzer.counts[f"refused, {mode}"] == FILES
        assert fuzzer.counts[f"read, {mode}"] > FILES / 50
        assert fuzzer.counts[f"refused, {mode}"] > FILES / 2
    assert 0 < fuzzer.worst["of_bound"] < 1
    assert not (tmp_path / "kept").exists()


def test_a_file_can_be_made_again():
    contents = fuzz_files.crafted()
    first, second = (fuzz_files.Maker(contents, seed=3) for _ in range(2))
    first.file(1)
    assert first.file(7) == second.file(7)
    assert first.file(7) != first.file(8)
    assert first.file(7) != fuzz_files.Maker(contents, seed=4).file(7)


@pytest.mark.parametrize("name", fuzz_files.crafted())
def test_what_is_taken_apart_can_be_put_together(name, tmp_path):
    content = fuzz_files.crafted()[name]
    parts = fuzz_files.taken_apart(content)
    (tmp_path / "a.pth").write_bytes(fuzz_files.put_together(parts))
    (tmp_path / "b.pth").write_bytes(content)
    found = [torch_file.read(tmp_path / f"{file}.pth", foreign=True) for file in "ab"]
    assert list(found[0]) == list(found[1])
    assert fuzz_files.taken_apart(fuzz_files.put_together(parts)) == parts


def _wrapped(error):
    raise torch_file.WeightFileError("damaged") from error


CODE = compile("pass", "<none>", "exec")
HARM = {
    "import": lambda path: __import__("this"),
    "exec": lambda path: exec(CODE),
    "compile": lambda path: compile("pass", "<none>", "exec"),
    "open for writing": lambda path: open(path, "r+b").close(),
    "another file": lambda path: open(os.devnull, "rb").close(),
    "os.system": lambda path: os.system("true"),
    "subprocess.Popen": lambda path: subprocess.run(["true"]),
    "socket.__new__": lambda path: socket.socket().close(),
    "ctypes.dlopen": lambda path: __import__("ctypes").CDLL(None),
    "os.remove": os.remove,
    "ValueError": lambda path: int("x"),
    "took more than": lambda path: time.sleep(5),
    "MemoryError": lambda path: bytearray(2 * fuzz_guard.BYTES_BESIDE),
    "RecursionError": lambda path: _wrapped(RecursionError("RecursionError")),
    "two lines": lambda path: (_ for _ in ()).throw(torch_file.WeightFileError("two lines\n")),
}


@pytest.mark.parametrize("harm", HARM)
def test_harm_is_found(tmp_path, monkeypatch, harm):
    monkeypatch.setattr(torch_file, "read", lambda path, foreign: HARM[harm](path))
    monkeypatch.setattr(fuzz_guard, "SECONDS", 0.2)
    path = tmp_path / "a.pth"
    path.touch()
    with fuzz_guard.limited_memory(0):
        outcome, error = fuzz_reader.attempt(path, foreign=False)
    assert outcome == "found"
    assert harm.replace("another file", "open").replace(" for writing", "") in repr(error)
    assert path.exists()


def test_a_finding_keeps_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "read", lambda path, foreign: int("x"))
    fuzzer = fuzz_reader.Fuzzer(fuzz_files.crafted(), seed=0, keep=tmp_path)
    fuzzer.run(range(2))
    assert [found["number"] for found in fuzzer.findings] == [0, 0, 1, 1]
    _, content = fuzz_files.Maker(fuzz_files.crafted(), seed=0).file(1)
    assert (tmp_path / "1_strict.pth").read_bytes() == content
