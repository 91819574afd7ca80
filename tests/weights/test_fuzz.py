"""Tries to break the reader of PyTorch files: nothing may run, hang, fill the memory or crash.

    FLOWAD_JAX_FUZZ=200000 python -m pytest tests/weights/test_fuzz.py -n 8 --dist load

reads so many damaged files instead of a few hundred, and every pickle made to fill the memory.
FLOWAD_JAX_FUZZ_SEED changes what is done to them. A failure lists the numbers of files, which
`fuzz_files.Maker` makes again.
"""

import collections
import os
import socket
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from flowad_jax.weights import torch_file
from tests.weights import fuzz_files, fuzz_guard, waste

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
FILES = int(os.environ.get("FLOWAD_JAX_FUZZ", "400"))
SEED = int(os.environ.get("FLOWAD_JAX_FUZZ_SEED", "0"))
CHUNK, TRACED = 1000, 50  # the memory of every so many reads is traced, which makes them slower


def check(contents, numbers, path):
    """Reads the files with these numbers and returns how often which outcome was met."""
    maker, counts, findings = fuzz_files.Maker(contents, SEED), collections.Counter(), []
    with fuzz_guard.limited_memory(fuzz_files.MAX_BYTES):
        for number in numbers:
            changes, content = maker.file(number)
            path.write_bytes(content)
            if number % TRACED == 0:
                tracemalloc.start()
            outcome, error = fuzz_guard.attempt(path)
            if number % TRACED == 0:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                if peak > fuzz_guard.bound(len(content)):
                    outcome, error = "found", MemoryError(f"held {peak} bytes")
            counts[outcome] += 1
            if outcome == "found":
                findings.append((number, changes, repr(error)))
    assert findings == []
    return counts


@pytest.mark.parametrize("first", range(0, FILES, CHUNK))
def test_damaged_files_are_read_or_refused(first, tmp_path):
    numbers = range(first, min(first + CHUNK, FILES))
    counts = check(fuzz_files.crafted(), numbers, tmp_path / "a.pth")
    # Enough of either, or the changes would be too weak or too strong to show anything.
    assert counts["read"] > len(numbers) / 50
    assert counts["refused"] > len(numbers) / 2


@pytest.mark.live
@pytest.mark.parametrize("first", range(0, FILES, CHUNK))
def test_so_are_damaged_files_of_pytorch(first, tmp_path):
    pytest.importorskip("torch")
    numbers = range(first, min(first + CHUNK, FILES))
    assert check(fuzz_files.by_torch(), numbers, tmp_path / "a.pth")["refused"]


# In a process of its own: how many bytes it grew while it read a file.
WASTED = """
import sys
from pathlib import Path
from flowad_jax.weights import unpickler
from tests.weights import craft, fuzz_guard, waste

def resident(name):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(name + ":")[1].split()[0])

name, path = sys.argv[1:]
body = waste.body(name, unpickler.MAX_OPERATIONS)
craft.zip_file(Path(path), body, {"s": waste.STORED.tobytes()})
del body
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
print(fuzz_guard.attempt(Path(path))[0], resident("VmHWM") - before)
"""


@pytest.mark.parametrize("name", waste.CASES if "FLOWAD_JAX_FUZZ" in os.environ else ["sets"])
def test_as_many_operations_as_there_may_be_stay_within_the_bound(tmp_path, name):
    path = tmp_path / "a.pth"
    command = [sys.executable, "-c", WASTED, name, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    outcome, grown = done.stdout.split()
    size = path.stat().st_size
    assert outcome != "found"
    assert int(grown) < size + fuzz_guard.bound(size)  # the pages of the mapped file count, too


def test_a_file_can_be_made_again():
    contents = fuzz_files.crafted()
    first, second = (fuzz_files.Maker(contents, seed=3) for _ in range(2))
    first.file(1)
    assert first.file(7) == second.file(7)
    assert first.file(7) != first.file(8)
    assert first.file(7) != fuzz_files.Maker(contents, seed=4).file(7)
    for content in contents.values():
        parts = fuzz_files.taken_apart(content)
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
    monkeypatch.setattr(torch_file, "read", HARM[harm])
    monkeypatch.setattr(fuzz_guard, "SECONDS", 0.2)
    path = tmp_path / "a.pth"
    path.touch()
    with fuzz_guard.limited_memory(0):
        outcome, error = fuzz_guard.attempt(path)
    assert outcome == "found"
    assert harm.replace("another file", "open").replace(" for writing", "") in repr(error)
    assert Path(path).exists()
