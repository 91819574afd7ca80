"""The documented bounds: 7 bytes for each of a file and 0.5 GB for what it builds; seconds.

Version 0.1 took 68 s for 64,000 tuples of one hash, and for more integers as long as one likes.
"""

import functools
import struct
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from flowad_jax.encoders import architecture
from flowad_jax.encoders.families import resnet
from flowad_jax.weights import layout, torch_file, unpickler
from peers import encoders as peers
from tests.weights import collisions, craft, waste

SECONDS = 4.0  # a hundred times what the slowest case takes where nothing else runs
# Of 0.5 GB, with a reserve of one half for what the allocator adds.
BYTES_PER_OPERATION = 125
ARRAY = waste.STORED
LONG = craft.text("x" * 100_000)
STORAGE = (craft.text("storage"), craft.named("torch", "FloatStorage"))


@pytest.fixture(params=[False, True], ids=["zip", "legacy"])
def measured(request, tmp_path):
    """Reads a body and returns the message it was refused with, the peak of bytes and the file."""

    def read(body):
        storages = {"s": ARRAY} if STORAGE[0] in body else {}  # legacy files list what is used
        path = craft.file(tmp_path / "a.pth", body, storages, legacy=request.param)
        message = ""
        tracemalloc.start()
        try:
            torch_file.read(path)
        except torch_file.WeightFileError as error:
            message = str(error)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return message, peak, path.stat().st_size

    return read


@pytest.mark.parametrize("measured", [False], indirect=True, ids=["zip"])
@pytest.mark.parametrize("name", waste.CASES)
def test_memory_of_operations(measured, monkeypatch, name):
    operations = 50_000
    monkeypatch.setattr(unpickler, "MAX_OPERATIONS", operations)
    message, peak, size = measured(waste.body(name, operations))
    assert "damaged" not in message  # else the case would not do what it is for
    assert peak < 7 * size + BYTES_PER_OPERATION * operations


TEXT = "a" * 2_000_000 + "\U0001f600"  # four bytes for a letter because of the last
TEXTS = {
    "text": craft.text(TEXT),
    "text of Python 2": b"T" + struct.pack("<i", len(TEXT.encode())) + TEXT.encode(),
    "name": craft.text(TEXT) + craft.text("x") + b"\x93",
    "key": b"}" + craft.text(TEXT) + b"Ns",
    "storage": craft.many(*STORAGE, craft.text(TEXT), b"NK\x06") + b"Q",
    "state": craft.named("torch", "device") + b")R" + craft.text(TEXT) + b"b",
}


@pytest.mark.parametrize("name", TEXTS)
def test_memory_of_texts(measured, name):
    message, peak, size = measured(TEXTS[name])
    assert "damaged" not in message
    assert peak < 7.1 * size


DOUBLING = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(200))
TUPLES = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(200))
OBJECT = craft.named("anomalib.models", "Patchcore")
FLAGS = craft.many(craft.storage("s", "float32", 6), b"K\x00", b"))\x89N", DOUBLING)
BOMBS = {
    "nested tuples as a key": b"}" + TUPLES + b"Ns",
    "nested tuples as a name": TUPLES + TUPLES + b"\x93",
    "nested lists as a persistent id": DOUBLING + b"Q",
    "nested lists as flags": craft.named("torch._utils", "_rebuild_tensor_v2") + FLAGS + b"R",
    "nested lists as a call": DOUBLING + b")R",
    "operations": b"}q\x00" * 200_000,
    "distant memo": b"Nr\xff\xff\xff\xff0",
    "memo of 2^31": b"}r" + struct.pack("<I", 2**31),
    "long integer": b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6,
    "announced integer": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\x7f",
    "announced text": b"X\xff\xff\xff\xffa",
    "announced long text": b"\x8d" + struct.pack("<Q", 2**62) + b"a",
    "announced frame": b"\x95" + struct.pack("<Q", 2**62) + b"o",
    "announced bytes": b"\x96" + struct.pack("<Q", 2**40) + b"a",
    "long decimal number": b"I" + b"9" * 2_000_000 + b"L\n",
    "long decimal of Python 2": b"L" + b"9" * 2_000_000 + b"L\n",
    "key of many letters": b"}" + LONG + b"Ns",
    "storage of many letters": craft.many(*STORAGE, LONG, b"N", b"K\x06") + b"Q",
}
HARMLESS = {
    "doubling as a state": DOUBLING + OBJECT + b")\x81h\xc8b",
    "doubling as an argument": DOUBLING + OBJECT + b"h\xc8\x85R",
    "doubling objects": OBJECT + b"q\x01N\x85Rq\x00" + b"h\x01h\x00h\x00\x86Rq\x00" * 5000,
    "huge arguments": OBJECT + b"q\x00(" + b"N" * 20_000 + b"tq\x01" + b"h\x00h\x01R" * 10_000,
    "states of one object": OBJECT + b")\x81" + b"}b" * 40_000,
}


@pytest.mark.parametrize("bomb", BOMBS | HARMLESS)
def test_bombs_end_soon_and_stay_small(measured, bomb, monkeypatch):
    monkeypatch.setattr(unpickler, "MAX_OPERATIONS", 100_000)
    start = time.process_time()
    message, peak, size = measured((BOMBS | HARMLESS)[bomb])
    assert time.process_time() - start < SECONDS
    assert peak < 7 * size + 30e6
    assert bool(message) == (bomb in BOMBS)


def test_the_five_pickles_of_a_legacy_file_share_what_they_may_do(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(unpickler, "MAX_OPERATIONS", 10_000)
    keys = [[]] * 5_000
    refused(craft.legacy_file(tmp_path / "a.pth", b"N" * 6_000, keys=keys), "more than 10000")


@functools.cache
def integers(most=2**59):
    return collisions.integers(21_000, most)


@functools.cache
def tuples():
    return collisions.tuples(64_000)


def set_at_once(keys):
    return b"}(" + b"".join(collisions.pickled(key) + b"N" for key in keys) + b"u"


def set_one_by_one(keys):
    return b"}" + b"".join(collisions.pickled(key) + b"Ns" for key in keys)


def built(keys):
    pairs = b"".join(collisions.pickled(key) + b"N\x86" for key in keys)
    return craft.named("collections", "OrderedDict") + b"](" + pairs + b"e\x85R"


def filled(module, name):
    return lambda keys: craft.named(module, name) + b")R" + set_at_once(keys)[1:]


FAMILIES = {
    "tuples": (tuples, set_at_once),
    "tuples one by one": (tuples, set_one_by_one),
    "tuples in a defaultdict": (tuples, filled("collections", "defaultdict")),
    # Equal hashes and equal beginnings.
    "long tuples": (lambda: [(0,) * 14 + pair for pair in tuples()[:20_000]], set_at_once),
    "integers": (integers, set_at_once),
    "integers one by one": (integers, set_one_by_one),
    "integers in an OrderedDict": (integers, built),
    "integers in an AttributeDict": (
        integers,
        filled("lightning.fabric.utilities.data", "AttributeDict"),
    ),
    "floats": (lambda: [float(key) for key in integers()], set_at_once),
    "integers in tuples": (lambda: [(key,) * 3 for key in integers()], set_at_once),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_keys_chosen_to_be_slow_are_refused_soon(tmp_path, refused, name):
    keys, body = FAMILIES[name]
    path = craft.zip_file(tmp_path / "a.pth", body(keys()))
    start = time.process_time()
    refused(path, "pickle operations")
    assert time.process_time() - start < SECONDS


def test_comparisons_are_bounded_by_the_operations_that_they_cost():
    """Whatever the order of keys: no more comparisons than 4 for each operation."""

    class Counted(unpickler.Budget):
        spent = 0

        def spend(self, count=1):
            self.spent += count

    for parts in (1, 2, 16):
        budget, target = Counted(), {}
        for number in np.random.default_rng(0).permutation(800) + 10_000:
            key = int(number) if parts == 1 else (int(number),) * parts
            unpickler.set_keys(target, [(key, None)], budget)
        comparisons = parts * len(target) * (len(target) - 1) / 2
        assert comparisons <= unpickler.COMPARISONS * (budget.spent + len(target))


def test_keys_that_honest_files_have_stay_free(tmp_path):
    """States of optimizers count their parameters, class lists have an entry for each class."""
    counted = dict.fromkeys(range(50_000))
    few = {(epoch, "loss"): None for epoch in range(1000)} | {0.5: None, None: None, -1: None}
    texts = {f"class {index}": None for index in range(100_000)}
    body = craft.many(*map(set_at_once, (counted, few, texts)))
    assert torch_file.read(craft.zip_file(tmp_path / "a.pth", body)) == (counted, few, texts)


def test_other_work_that_a_file_may_choose(tmp_path, refused):
    """Numbers of the memo are no keys, names of storages are compared once, extras are counted."""
    path, start = tmp_path / "a.pth", time.process_time()
    memo = b"}" + b"".join(b"r" + struct.pack("<I", k) for k in integers(unpickler.MAX_OPERATIONS))
    assert torch_file.read(craft.zip_file(path, memo)) == {}

    body = b"}(" + b"".join(craft.text(str(i)) + b"N" for i in range(3)) + b"u"
    craft.legacy_file(path, body, {}, keys=["x" * 10_000_000] * 100_000)
    refused(path, "does not list the storages")

    craft.zip_file(path, b"}")
    extra = struct.pack("<HH", 9, 0) * 16_000
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *[0] * 9, 1, len(extra), *[0] * 5)
    craft.add_zip_entries(path, (entry + b"x" + extra) * 200, 200)
    refused(path, "extras")
    assert time.process_time() - start < SECONDS


# In a process of its own: largest resident set less what the idle process had, in bytes.
MEASURE = """
import sys
from pathlib import Path
from flowad_jax.encoders import architecture, load
from flowad_jax.weights import store

def resident(name):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(name + ":")[1].split()[0])

arch, source, target = sys.argv[1:]
# What JAX takes has nothing to do with the file.
architecture.complete_shapes(architecture.find(arch))
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
store.save(target, *load.convert_checkpoint(arch, source))
print(resident("VmHWM") - before)
"""


@pytest.mark.whole
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_conversion_keeps_the_file_in_memory_once(tmp_path, legacy):
    shapes = architecture.complete_shapes(architecture.find("resnet.resnet34"))
    tensors = {
        rule.key: peers.random_tensor(rule.key, rule.torch_shape)
        for rule in layout.rules(shapes, resnet.torch_key)
    }
    path = craft.checkpoint(tmp_path / "a.pth", tensors, legacy=legacy)
    output = tmp_path / "b.safetensors"
    command = [sys.executable, "-c", MEASURE, "resnet.resnet34", str(path), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size = path.stat().st_size
    assert size > 80e6
    assert int(done.stdout) < 1.3 * size
    assert output.stat().st_size > 0.99 * size
