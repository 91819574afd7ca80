"""Files made to harm a reader that keeps foreign objects: these stay as dead as their names."""

import functools
import os
import pickle
import tracemalloc

import pytest

from flowad_jax.weights import torch_file, unpickler
from flowad_jax.weights.foreign import Foreign
from tests.weights import craft
from tests.weights.test_hostile_files import ABUSES, CALL, NAMED, Calls, bombs

OBJECT = craft.named("anomalib.models", "Patchcore")
SYSTEM = craft.named("os", "system")
HARM = SYSTEM + CALL
INERT = {
    "torch.load",
    "torch.hub.load",
    "torch.storage._load_from_bytes",
    "functools.partial",
    "numpy.load",
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a pickle body into a file, in a folder where harm would show."""
    monkeypatch.chdir(tmp_path)
    return lambda body: craft.zip_file(tmp_path / "harm.ckpt", body)


@pytest.mark.parametrize("asked", NAMED)
def test_names_outside_of_the_list_are_refused(write, refused, asked):
    path = write(NAMED[asked])
    if asked in INERT:
        found = torch_file.read(path, foreign=True)
        assert type(found) is Foreign
        assert (found.name, found.arguments) == (asked, ("touch HARM",))
    else:
        refused(path, asked, foreign=True)
    assert not os.path.exists("HARM")


REFUSED_NAMES = (
    *("os.system", "posix.system", "nt.system", "subprocess.Popen", "sys.exit", "shutil.rmtree"),
    *("builtins.eval", "builtins.exec", "builtins.getattr", "builtins.__import__", "builtins.open"),
    *(
        "builtins.type",
        "builtins.compile",
        "__builtin__.apply",
        "__builtin__.file",
        "types.CodeType",
    ),
    *(
        "operator.attrgetter",
        "operator.methodcaller",
        "functools.reduce",
        "importlib.import_module",
    ),
    *("pickle.loads", "marshal.loads", "ctypes.CDLL", "socket.socket", "webbrowser.open"),
    *(
        "torch.__builtins__.eval",
        "torch.x.__globals__",
        "collections.__class__",
        "enum.sys.__dict__",
    ),
    *("torchx.load", "numpy_.load", "collections2.deque", "_collections.deque", "__main__.Model"),
    *("torch.", "torch..load", ".torch", "torch", "torch.a b", "torch.größe", "torch.\x1b[2J"),
    *("torch." + "x" * 101, "numpy.0"),
)


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_name(write, refused, name):
    module, _, attribute = name.partition(".")
    refused(write(craft.text(module) + craft.text(attribute) + b"\x93"), "asks for", foreign=True)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wrapped", ["partial", "argument", "key"])
def test_real_pickles_of_calls(write, refused, protocol, wrapped):
    objects = {
        "partial": functools.partial(os.system, "touch HARM"),
        "argument": Calls(functools.partial, Calls(os.system, "touch HARM")),
        "key": {(1, Calls(os.system, "touch HARM")): 1},
    }
    body = pickle.dumps({"hyper_parameters": objects[wrapped]}, protocol)[2:-1]
    refused(write(body), ".system'", foreign=True)
    assert not os.path.exists("HARM")


ABUSES_OF_OBJECTS = {
    "call in an argument": OBJECT + HARM + b"\x85R",
    "call in a keyword": OBJECT + b")" + craft.mapping({"x": HARM}) + b"\x92",
    "call in a state": OBJECT + b")\x81" + craft.mapping({"x": HARM}) + b"b",
    "call in a pair": OBJECT + b")\x81N" + HARM + b"s",
    "call in an item": OBJECT + b")\x81" + HARM + b"a",
    "call as a key": b"}" + HARM + b"Ns",
    "object of a refused class": SYSTEM + b")\x81",
    "object of a refused class with keywords": SYSTEM + b")}\x92",
    "old object of a refused class": b"(" + craft.text("touch HARM") + SYSTEM + b"o",
    "call of an object": OBJECT + b")R" + CALL,
    "call of bytes": b"C\x01a" + CALL,
    "object of an object": OBJECT + b")R)\x81",
    "object of text": craft.text("anomalib.models.Patchcore") + b")\x81",
    "arguments are no tuple": OBJECT + b"]R",
    "arguments of a new one are no tuple": OBJECT + b"]\x81",
    "keywords are no dict": OBJECT + b")]\x92",
    "keywords are an object": OBJECT + b")" + OBJECT + b")R\x92",
    "attributes of a class": OBJECT + b"}b",
    "attributes of a list": b"]}b",
    "item of a class": OBJECT + b"Na",
    "pair of a class": OBJECT + b"NNs",
    "pair of a list": b"]NNs",
    "odd number of pairs": OBJECT + b")R(Nu",
    "list as a key": b"}]Ns",
    "dict as a key": b"}}Ns",
    "tensor as a storage": craft.tensor(OBJECT + b")R", 0, (1,), (1,)),
    "long integer as a key": b"}" + craft.integer(2**60) + b"Ns",
    "long text as a key": b"}" + craft.text("x" * 10_001) + b"Ns",
    "long bytes as a key": b"}B" + (10_001).to_bytes(4, "little") + b"x" * 10_001 + b"Ns",
    "long tuple as a key": b"}(" + b"N" * 17 + b"tNs",
    "nested tuple as a key": b"}N\x85\x85Ns",
    "persistent object": OBJECT + b")RQ",
    "persistent class that is text": craft.many(*[craft.text("module")] * 4) + b"Q",
    "persistent class that is refused": craft.many(craft.text("module"), SYSTEM, b"N", b"N") + b"Q",
    "name that is an object": OBJECT + b")R" + craft.text("x") + b"\x93",
    "INST": b"(ianomalib.models\nPatchcore\n",
    "EXT1": b"\x82\x01",
}


@pytest.mark.parametrize("abuse", ABUSES_OF_OBJECTS)
def test_abuse_of_objects(write, refused, abuse):
    refused(write(ABUSES_OF_OBJECTS[abuse]), foreign=True)
    assert not os.path.exists("HARM")


# Refused by a reader of tensors; this one keeps them.
KEPT = {"call of a storage type", "call of a dtype", "attributes of a dict", "NEWOBJ", "bytes"}
KEPT |= {"state is text", "tuple as a key"}


@pytest.mark.parametrize("abuse", ABUSES)
def test_abuse_of_operations(write, refused, abuse):
    if abuse in KEPT:
        torch_file.read(write(ABUSES[abuse]), foreign=True)
    else:
        refused(write(ABUSES[abuse]), foreign=True)


DOUBLING = bombs()["nested lists as a persistent id"][:-1]
BOMBS = {
    "doubling as a state": DOUBLING + OBJECT + b")\x81h\xc8b",
    "doubling as an argument": DOUBLING + OBJECT + b"h\xc8\x85R",
    "doubling objects": OBJECT + b"q\x01N\x85Rq\x00" + b"h\x01h\x00h\x00\x86Rq\x00" * 5000,
    "huge arguments": OBJECT + b"q\x00(" + b"N" * 20_000 + b"tq\x01" + b"h\x00h\x01R" * 10_000,
    "huge arguments of a dict": craft.named("collections", "defaultdict")
    + b"q\x00("
    + b"N" * 20_000
    + b"tq\x01"
    + b"h\x00h\x01\x81" * 10_000,
    "the same state": OBJECT + b"q\x00}q\x01" + b"h\x00)\x81h\x01b" * 10_000,
    "states of one object": OBJECT + b")\x81" + b"}b" * 40_000,
    "long names": craft.text("torch." + "x" * 90)
    + b"q\x00"
    + craft.text("y" * 100)
    + b"q\x01"
    + b"h\x00h\x01\x93" * 30_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_stay_small(write, bomb, monkeypatch):
    monkeypatch.setattr(unpickler, "MAX_OPERATIONS", 100_000)
    path = write(BOMBS[bomb])
    tracemalloc.start()
    found = torch_file.read(path, foreign=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(repr(found)) < 200
    assert peak < 7 * path.stat().st_size + 25e6
