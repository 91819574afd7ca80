"""Files made to harm: nothing may run, hang or fill the memory."""

import os
import pickle
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from flowad_jax.weights import torch_file, unpickler
from tests.weights import craft

CALL = craft.text("touch HARM") + b"\x85R"
ARRAY = np.arange(6, dtype=np.float32)
STORED = craft.storage("s", "float32", 6)


def stack_global(module, name):
    short = [b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name)]
    return b"".join(short) + b"\x93"


class Calls:
    """An object whose pickle is a call."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.fixture(params=["zip", "legacy"])
def write(request, tmp_path):
    """Writes a pickle body, with one storage "s" of six floats, in either format."""
    path = tmp_path / "harm.pth"
    if request.param == "zip":
        return lambda body: craft.zip_file(path, body, {"s": ARRAY.tobytes()})
    return lambda body: craft.legacy_file(path, body, {"s": ARRAY})


NAMED = {
    "posix.system": craft.named("posix", "system") + CALL,
    "os.system": craft.named("os", "system") + CALL,
    "builtins.eval": stack_global("builtins", "eval") + CALL,
    "builtins.getattr": craft.named("builtins", "getattr") + STORED + craft.text("x") + b"\x86R",
    "__builtin__.exec": craft.named("__builtin__", "exec") + CALL,
    "torch.load": craft.named("torch", "load") + CALL,
    "torch.hub.load": stack_global("torch.hub", "load") + CALL,
    "torch.storage._load_from_bytes": craft.named("torch.storage", "_load_from_bytes") + CALL,
    "torch._utils._rebuild_tensor_v2.__globals__": stack_global(
        "torch._utils", "_rebuild_tensor_v2.__globals__"
    ),
    "collections.OrderedDict.__class__": stack_global("collections", "OrderedDict.__class__"),
    "functools.partial": craft.named("functools", "partial") + CALL,
    "numpy.load": craft.named("numpy", "load") + CALL,
    "INST 'posix system'": b"(" + craft.text("touch HARM") + b"iposix\nsystem\n",
}


@pytest.mark.parametrize("asked", NAMED)
def test_names_what_was_asked_for(write, refused, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(write(NAMED[asked]), asked)
    assert not os.path.exists("HARM")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_real_pickles_of_calls(write, refused, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nested = {"state_dict": Calls(dict, [("a", Calls(os.system, "touch HARM"))])}
    body = pickle.dumps(nested, protocol)[2 * (protocol >= 2) : -1]
    refused(write(body), "asks for")
    assert not os.path.exists("HARM")


def test_the_name_alone_is_refused(write, refused):
    refused(write(craft.mapping({"a": craft.named("posix", "system")})), "'posix.system'")


ORDERED = craft.named("collections", "OrderedDict")
REBUILD = craft.named("torch._utils", "_rebuild_tensor_v2")
ABUSES = {
    "call of text": craft.text("os.system") + CALL,
    "call of a storage type": craft.named("torch", "FloatStorage") + CALL,
    "call of a dtype": craft.named("torch", "float32") + b")R",
    "call of a dict": b"})R",
    "arguments are no tuple": ORDERED + b"]R",
    "attributes of a tensor": craft.whole("s", ARRAY) + craft.mapping({"x": b"N"}) + b"b",
    "attributes of a dict": ORDERED + b")R" + craft.mapping({"items": b"N"}) + b"b",
    "attributes of a global": ORDERED + craft.mapping({"x": b"N"}) + b"b",
    "state is text": b"}" + craft.text("x") + b"b",
    "NEWOBJ": ORDERED + b")\x81",
    "OBJ": b"(" + ORDERED + b"o",
    "EXT1": b"\x82\x01",
    "bytes": b"C\x01a",
    "persistent text": craft.text("storage") + b"Q",
    "persistent of another kind": craft.many(*[craft.text("module")] * 5) + b"Q",
    "persistent type is text": craft.many(*[craft.text("storage")] * 4, b"K\x06") + b"Q",
    "storage is no array": REBUILD
    + craft.many(craft.text("s"), b"K\x00", b")", b")", b"\x89", b"N")
    + b"R",
    "stack is empty": b"0",
    "mark is missing": b"u",
    "memo is empty": b"h\x05",
    "odd number of items": b"}(K\x01u",
    "append to a dict": b"}K\x01a",
    "item of a list": b"]K\x01K\x01s",
    "tuple as a key": b"})Ns",
    "long key": b"}" + craft.integer(2**100) + b"Ns",
    "dict of text": ORDERED + craft.text("ab") + b"\x85R",
    "dict of an array": ORDERED + craft.whole("s", ARRAY) + b"\x85R",
    "size of an array": craft.named("torch", "Size") + craft.whole("s", ARRAY) + b"\x85R",
    "bad unicode": b"X\x02\0\0\0\xff\xff",
    "global that is no text": b"K\x01K\x02\x93",
}


@pytest.mark.parametrize("abuse", ABUSES)
def test_abuse_of_operations(write, refused, abuse):
    refused(write(ABUSES[abuse]))


VIEWS = {
    "beyond the end": (0, (7,), (1,)),
    "offset": (6, (1,), (1,)),
    "stride": (0, (2, 2), (5, 1)),
    "negative stride": (5, (2,), (-1,)),
    "negative offset": (-1, (1,), (1,)),
    "negative size": (0, (-1,), (1,)),
    "huge size": (0, (2**62, 2**62), (0, 0)),
    "huge empty": (0, (2**62, 0, 2**62), (1, 1, 1)),
    "huge stride": (0, (1,), (2**70,)),
    "size and stride differ": (0, (2, 3), (1,)),
    "many dimensions": (0, (1,) * 65, (1,) * 65),
    "expanded beyond measure": (0, (10_000, 10_000), (0, 0)),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_outside_of_their_storage(write, refused, view):
    refused(write(craft.tensor(STORED, *VIEWS[view])))


def test_storage_declared_larger_than_the_file(write, refused):
    for count in (7, 2**40, 2**80, -1):
        refused(write(craft.tensor(craft.storage("s", "float32", count), 0, (1,), (1,))))


def test_text_from_the_file_cannot_reach_the_terminal(write, refused):
    name = "\x1b[2J\n" + "x" * 5000
    body = craft.text("os") + craft.text(name) + b"\x93"
    assert len(refused(write(body), r"'os.\x1b[2J\n")) < 400


def bombs():
    doubling = b"]q\x00" + b"".join(
        b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(200)
    )
    tuples = b")q\x00" + b"".join(
        b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(200)
    )
    return {
        "nested tuples as a key": b"}" + tuples + b"Ns",
        "nested tuples as a name": tuples + tuples + b"\x93",
        "nested lists as a persistent id": doubling + b"Q",
        "nested lists as flags": REBUILD
        + craft.many(STORED, b"K\x00", b")", b")", b"\x89", b"N", doubling)
        + b"R",
        "nested lists as a call": doubling + b")R",
        "operations": b"}q\x00" * 200_000,
        "distant memo": b"Nr\xff\xff\xff\xff0",
        "long integer": b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6,
        "announced integer": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\x7f",
        "announced text": b"X\xff\xff\xff\xffa",
        "announced long text": b"\x8d" + struct.pack("<Q", 2**62) + b"a",
        "announced frame": b"\x95" + struct.pack("<Q", 2**62) + b"o",
        "announced bytes": b"\x96" + struct.pack("<Q", 2**40) + b"a",
    }


@pytest.mark.parametrize("bomb", bombs())
def test_bombs_end_soon_and_stay_small(write, refused, bomb, monkeypatch):
    monkeypatch.setattr(unpickler, "MAX_OPERATIONS", 100_000)
    path = write(bombs()[bomb])
    tracemalloc.start()
    start = time.process_time()
    refused(path)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 5
    assert peak < 5 * path.stat().st_size + 30e6


def test_shared_and_cyclic_containers_are_not_walked(write):
    cyclic = b"}q\x00" + craft.text("self") + b"h\x00s"
    found = torch_file.read(write(craft.mapping({"c": cyclic, "t": craft.whole("s", ARRAY)})))
    assert found["c"]["self"] is found["c"]
    assert torch_file.read(write(b"]" * 50_000 + b"a" * 49_999 + craft.whole("s", ARRAY) + b"a"))


def test_compressed_zip_bomb(tmp_path, refused):
    path, zeros = tmp_path / "a.pth", np.zeros(10**6, np.float32)
    body = craft.mapping({"a": craft.whole("s", zeros)})
    craft.zip_file(path, body, {"s": zeros.tobytes()}, compression=zipfile.ZIP_DEFLATED)
    refused(path, "larger than the file")


def test_overlapping_zip_entries(tmp_path, refused):
    path = craft.zip_file(tmp_path / "a.pth", b"}", {"s": bytes(5000)})
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = content[content.rindex(b"PK\x01\x02") : end]
    directory = content[at:end] + entry * 9
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 13, 13, len(directory), at, 0)
    path.write_bytes(content[:at] + directory + tail)
    refused(path, "overlap")


def test_too_many_zip_entries(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(torch_file, "MAX_ZIP_ENTRIES", 2)
    refused(craft.zip_file(tmp_path / "a.pth", b"}"), "zip entries")


def test_legacy_storage_list(tmp_path, refused):
    path, body = tmp_path / "a.pth", craft.whole("s", ARRAY)
    for keys in ([], ["s", "s"], ["s", "t"], [1], "s", [()]):
        refused(craft.legacy_file(path, body, {"s": ARRAY}, keys=keys))
    refused(craft.legacy_file(path, body, {"s": ARRAY[:5]}), "5 elements")
    two = craft.mapping({"a": body, "b": craft.whole("s", ARRAY.astype(np.float16))})
    refused(craft.legacy_file(path, two, {"s": ARRAY}), "two types")
