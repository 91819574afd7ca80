"""Files made to harm: nothing runs, whatever a pickle names, calls or builds."""

import functools
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest

from flowad_jax.weights import torch_file
from flowad_jax.weights.foreign import Foreign
from tests.weights import craft

CALL = craft.text("touch HARM") + b"\x85R"
ARRAY = np.arange(6, dtype=np.float32)
STORED = craft.storage("s", "float32", 6)
OBJECT = craft.named("anomalib.models", "Patchcore")
SYSTEM = craft.named("os", "system")
HARM = SYSTEM + CALL
ORDERED = craft.named("collections", "OrderedDict")
REBUILD = craft.named("torch._utils", "_rebuild_tensor_v2")


@pytest.fixture(params=["zip", "legacy"])
def write(request, tmp_path, monkeypatch):
    """Writes a pickle body, with one storage "s" of six floats, in a folder where harm shows."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "harm.pth"
    legacy = request.param == "legacy"

    def write(body):
        storages = {"s": ARRAY} if craft.text("storage") in body else {}  # as legacy files list
        return craft.file(path, body, storages, legacy)

    yield write
    assert not os.path.exists("HARM")


REFUSED_NAMES = (
    *("os.system", "posix.system", "nt.system", "subprocess.Popen", "sys.exit", "shutil.rmtree"),
    *("builtins.eval", "builtins.exec", "builtins.getattr", "builtins.__import__", "builtins.open"),
    *("builtins.type", "builtins.compile", "__builtin__.apply", "__builtin__.file"),
    *("__builtin__.exec", "types.CodeType", "operator.attrgetter", "operator.methodcaller"),
    *("functools.reduce", "importlib.import_module", "pickle.loads", "marshal.loads"),
    *("ctypes.CDLL", "socket.socket", "webbrowser.open", "torch.__builtins__.eval"),
    *("torch._utils._rebuild_tensor_v2.__globals__", "collections.OrderedDict.__class__"),
    *("torch.x.__globals__", "collections.__class__", "enum.sys.__dict__", "torchx.load"),
    *("numpy_.load", "collections2.deque", "_collections.deque", "__main__.Model", "torch."),
    *("torch..load", ".torch", "torch", "torch.a b", "torch.größe", "torch.\x1b[2J"),
    *("torch." + "x" * 101, "numpy.0", "os.\x1b[2J\n" + "x" * 5000),
)
INERT_NAMES = (
    *("torch.load", "torch.hub.load", "torch.storage._load_from_bytes", "functools.partial"),
    *("numpy.load", "torchmetrics.Metric", "torch.FloatStorage", "torch.float32"),
)


@pytest.mark.parametrize("name", REFUSED_NAMES, ids=lambda name: name[:40])
def test_names_outside_of_the_list_are_refused(write, refused, name):
    module, _, attribute = name.partition(".")
    asked = f"asks for {ascii(f'{module}.{attribute}'[:60])[:-1]}"
    for stacked in (b"\x93", b"\x93" + CALL):
        message = refused(write(craft.text(module) + craft.text(attribute) + stacked), asked)
        assert len(message) < 400
    if name.isascii() and name.isprintable():
        refused(write(craft.mapping({"a": craft.named(module, attribute)})), asked)


@pytest.mark.parametrize("name", INERT_NAMES)
def test_names_of_libraries_stay_names(write, name):
    module, _, attribute = name.rpartition(".")
    modules = set(sys.modules)
    found = torch_file.read(write(craft.named(module, attribute) + CALL))
    assert (type(found), found.name) == (Foreign, name)
    assert set(sys.modules) == modules


class Calls:
    """An object whose pickle is a call."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_real_pickles_of_calls(write, refused, protocol):
    system = Calls(os.system, "touch HARM")
    for harm in (
        {"state_dict": Calls(dict, [("a", system)])},
        functools.partial(os.system, "touch HARM"),
        Calls(functools.partial, system),
        {(1, system): 1},
    ):
        body = pickle.dumps({"x": harm}, protocol)[2 * (protocol >= 2) : -1]
        refused(write(body), "asks for")


ABUSES = {
    "call of text": craft.text("os.system") + CALL,
    "call of a dict": b"})R",
    "call of bytes": b"C\x01a" + CALL,
    "call of an object": OBJECT + b")R" + CALL,
    "arguments are no tuple": ORDERED + b"]R",
    "arguments of a new one are no tuple": OBJECT + b"]\x81",
    "keywords are no dict": OBJECT + b")]\x92",
    "keywords are an object": OBJECT + b")" + OBJECT + b")R\x92",
    "object of an object": OBJECT + b")R)\x81",
    "object of text": craft.text("anomalib.models.Patchcore") + b")\x81",
    **{
        f"call in {place}": OBJECT + body
        for place, body in {
            "an argument": HARM + b"\x85R",
            "a keyword": b")" + craft.mapping({"x": HARM}) + b"\x92",
            "a state": b")\x81" + craft.mapping({"x": HARM}) + b"b",
            "a pair": b")\x81N" + HARM + b"s",
            "an item": b")\x81" + HARM + b"a",
            "a key": b"0}" + HARM + b"Ns",
        }.items()
    },
    "object of a refused class": SYSTEM + b")\x81",
    "old object of a refused class": b"(" + craft.text("touch HARM") + SYSTEM + b"o",
    "INST": b"(" + craft.text("touch HARM") + b"iposix\nsystem\n",
    "INST of a known class": b"(ianomalib.models\nPatchcore\n",
    "OBJ": b"(" + ORDERED + b"o",
    "EXT1": b"\x82\x01",
    "attributes of a tensor": craft.whole("s", ARRAY) + craft.mapping({"x": b"N"}) + b"b",
    "attributes of a global": ORDERED + craft.mapping({"x": b"N"}) + b"b",
    "attributes of a list": b"]}b",
    "item of a class": OBJECT + b"Na",
    "pair of a class": OBJECT + b"NNs",
    "pair of a list": b"]K\x01K\x01s",
    "append to a dict": b"}K\x01a",
    "odd number of items": b"}(K\x01u",
    "odd number of pairs": OBJECT + b")R(Nu",
    "list as a key": b"}]Ns",
    "dict as a key": b"}}Ns",
    "long integer as a key": b"}" + craft.integer(2**60) + b"Ns",
    "long text as a key": b"}" + craft.text("x" * 10_001) + b"Ns",
    "long bytes as a key": b"}B" + (10_001).to_bytes(4, "little") + b"x" * 10_001 + b"Ns",
    "long tuple as a key": b"}(" + b"N" * 17 + b"tNs",
    "nested tuple as a key": b"}N\x85\x85Ns",
    "persistent text": craft.text("storage") + b"Q",
    "persistent object": OBJECT + b")RQ",
    "persistent of another kind": craft.many(*[craft.text("module")] * 5) + b"Q",
    "persistent type is text": craft.many(*[craft.text("storage")] * 4, b"K\x06") + b"Q",
    "persistent type is a class": craft.many(craft.text("storage"), OBJECT, b"NNN") + b"Q",
    "persistent class that is text": craft.many(*[craft.text("module")] * 4) + b"Q",
    "persistent class that is refused": craft.many(craft.text("module"), SYSTEM, b"NN") + b"Q",
    "storage is no array": craft.tensor(craft.text("s"), 0, (), ()),
    "storage is an object": craft.tensor(OBJECT + b")R", 0, (1,), (1,)),
    "dict of text": ORDERED + craft.text("ab") + b"\x85R",
    "dict of an array": ORDERED + craft.whole("s", ARRAY) + b"\x85R",
    "size of an array": craft.named("torch", "Size") + craft.whole("s", ARRAY) + b"\x85R",
    "stack is empty": b"0",
    "mark is missing": b"u",
    "memo is empty": b"h\x05",
    "place of the memo is empty": b"}r\x05\0\0\0h\x03",
    "bad unicode": b"X\x02\0\0\0\xff\xff",
    "global that is no text": b"K\x01K\x02\x93",
    "name that is an object": OBJECT + b")R" + craft.text("x") + b"\x93",
    **{
        f"storage of {count}": craft.tensor(craft.storage("s", "float32", count), 0, (1,), (1,))
        for count in (7, 2**40, 2**80, -1)
    },
    **{
        f"view {name}": craft.tensor(STORED, *view)
        for name, view in {
            "beyond the end": (0, (7,), (1,)),
            "with an offset": (6, (1,), (1,)),
            "with a stride": (0, (2, 2), (5, 1)),
            "with a negative stride": (5, (2,), (-1,)),
            "with a negative offset": (-1, (1,), (1,)),
            "with a negative size": (0, (-1,), (1,)),
            "of huge size": (0, (2**62, 2**62), (0, 0)),
            "of huge empty size": (0, (2**62, 0, 2**62), (1, 1, 1)),
            "with a huge stride": (0, (1,), (2**70,)),
            "whose size and stride differ": (0, (2, 3), (1,)),
            "of many dimensions": (0, (1,) * 65, (1,) * 65),
            "expanded beyond measure": (0, (10_000, 10_000), (0, 0)),
        }.items()
    },
}


@pytest.mark.parametrize("abuse", ABUSES)
def test_abuse_of_operations(write, refused, abuse):
    refused(write(ABUSES[abuse]))


KEPT = {
    "attributes of a dict": ORDERED + b")R" + craft.mapping({"items": b"N"}) + b"b",
    "state that is text": b"}" + craft.text("x") + b"b",
    "new dict": ORDERED + b")\x81",
    "tuple as a key": b"})Ns",
    "object as a key": b"}" + OBJECT + b")RNs",
    "object in itself": OBJECT + b")\x81q\x00h\x00ah\x00h\x00sh\x00b",
    "deep objects": OBJECT + b"q\x01N\x85Rq\x00" + b"h\x01h\x00\x85Rq\x00" * 50_000,
    "deep lists": b"]" * 50_000 + b"a" * 49_999,
}


@pytest.mark.parametrize("kept", KEPT)
def test_what_honest_files_may_do(write, kept):
    assert type(torch_file.read(write(KEPT[kept]))) in (dict, list, Foreign)


def test_a_container_in_itself_is_not_walked(write):
    cyclic = b"}q\x00" + craft.text("self") + b"h\x00s"
    found = torch_file.read(write(craft.mapping({"c": cyclic, "t": craft.whole("s", ARRAY)})))
    assert found["c"]["self"] is found["c"]


def test_directories_of_zip_files(tmp_path, refused, monkeypatch):
    path, zeros = tmp_path / "a.pth", np.zeros(10**6, np.float32)
    body = craft.mapping({"a": craft.whole("s", zeros)})
    craft.zip_file(path, body, {"s": zeros.tobytes()}, compression=zipfile.ZIP_DEFLATED)
    refused(path, "larger than the file")

    craft.zip_file(path, b"}", {"s": bytes(5000)})
    content = path.read_bytes()
    entry = content[content.rindex(b"PK\x01\x02") : content.index(b"PK\x05\x06")]
    craft.add_zip_entries(path, entry * 9, 9)
    refused(path, "overlap")

    monkeypatch.setattr(torch_file, "MAX_ZIP_ENTRIES", 2)
    refused(craft.zip_file(path, b"}"), "zip entries")


def test_lists_of_storages_in_legacy_files(tmp_path, refused):
    path, body = tmp_path / "a.pth", craft.whole("s", ARRAY)
    for keys in ([], ["s", "s"], ["s", "t"], [1], "s", [()]):
        refused(craft.legacy_file(path, body, {"s": ARRAY}, keys=keys), "storages")
    refused(craft.legacy_file(path, body, {"s": ARRAY[:5]}), "5 elements")
    two = craft.mapping({"a": body, "b": craft.whole("s", ARRAY.astype(np.float16))})
    refused(craft.legacy_file(path, two, {"s": ARRAY}), "two types")
    part = craft.many(craft.text("v"), craft.integer(4), craft.integer(-1))
    view = craft.tensor(craft.storage("s", "float32", 6, part), 0, (1,), (1,))
    refused(craft.legacy_file(path, view, {"s": ARRAY}), "impossible view")
