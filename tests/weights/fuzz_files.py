"""Damaged and hostile PyTorch checkpoints, each made from a good one by a number.

A checkpoint is taken apart into the operations of its pickles and the rest, changed, and put
together again so that checksums fit; or it is changed as the bytes that it is. The same seed and
number give the same file, whatever was made before.
"""

import io
import pickletools
import random
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.weights import craft, lightning_like

MAX_BYTES = 1_000_000
MAX_NESTING = 3000
EXTREMES = (0, -1, 1, 7, 255, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, -(2**63), 2**127)
GLOBALS = (
    *("os system", "posix system", "builtins eval", "builtins exec", "builtins getattr"),
    *("subprocess Popen", "socket socket", "ctypes CDLL", "__builtin__ open", "importlib reload"),
    *("torch load", "torch FloatStorage", "torch.storage LongStorage", "torch Size", "torch bool"),
    *("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", "torch float8_e4m3fn"),
    *("torch._utils _rebuild_tensor_v3", "torch._utils _rebuild_parameter", "torch device"),
    *("collections OrderedDict", "collections defaultdict", "functools partial", "builtins set"),
    *("anomalib.models Patchcore", "lightning.fabric.utilities.data AttributeDict"),
)
PLAIN = [operation.code.encode("latin-1") for operation in pickletools.opcodes if not operation.arg]
NESTED = (b"(", b"]", b"}", b")", b"\x85", b"a", b"R", b"\x81", b"b", b"Q", b"0", b"N", b"h\x00")
CALL = craft.text("touch HARM") + b"\x85R"
MADE = (CALL, b")R", b")\x81", b")}\x92", b")\x81}b", b")\x81NNs", b")\x81Na")
TENSORS = {
    "w": np.ones((2, 3), np.float32),
    "half": np.ones(4, np.float16),
    "n": np.array(3),
    "b": np.array([True]),
}


class Parts(NamedTuple):
    """A checkpoint, taken apart.

    Attributes:
      legacy: whether it is in the legacy format, not a zip file.
      pickles: the operations of each of its pickles.
      rest: zip entries, the one of the pickle first and empty; or, under "", what follows the
        pickles.
    """

    legacy: bool
    pickles: list
    rest: dict


def taken_apart(content):
    if content[:2] != b"PK":
        stream = io.BytesIO(content)
        return Parts(True, [_operations(stream) for _ in range(5)], {"": stream.read()})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    (key,) = [entry for entry in entries if entry.endswith("/data.pkl")]
    return Parts(False, [_operations(io.BytesIO(entries.pop(key)))], {key: b"", **entries})


def _operations(stream):
    """The operations of the next pickle of a stream."""
    places = [place for _, _, place in pickletools.genops(stream)]
    ends = [*places[1:], stream.tell()]
    return [stream.getvalue()[place:end] for place, end in zip(places, ends, strict=True)]


def put_together(parts):
    joined = [b"".join(operations) for operations in parts.pickles]
    if parts.legacy:
        return b"".join(joined) + parts.rest[""]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for index, (name, content) in enumerate(parts.rest.items()):
            archive.writestr(zipfile.ZipInfo(name), content if index else joined[0])
    return stream.getvalue()


def crafted():
    """Undamaged checkpoints by name: tensors, one of which shares its storage, and objects."""
    views = {name: craft.whole(name, array) for name, array in TENSORS.items()}
    views["view"] = craft.tensor(craft.storage("w", "float32", 6), 1, (2, 2), (1, 2))
    nested = craft.mapping({"state_dict": craft.mapping(views), "epoch": craft.integer(9)})
    cases = {
        "zip": (nested, TENSORS, False),
        "legacy": (nested, TENSORS, True),
        "zip with objects": (lightning_like.body(), {}, False),
        "zip with objects, protocol 4": (lightning_like.body(4), {}, False),
        "legacy with objects": (lightning_like.body(), {}, True),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "good.pth"
        return {name: craft.file(path, *case).read_bytes() for name, case in cases.items()}


def by_torch():
    """The same, written by PyTorch."""
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    found = {}
    for zipped in (True, False):
        stream = io.BytesIO()
        with lightning_like.pretended_modules():
            content = lightning_like.content(module.state_dict())
            content["hyper_parameters"]["module"] = module
            torch.save(content, stream, _use_new_zipfile_serialization=zipped)
        found[f"torch {zipped}"] = stream.getvalue()
    return found


def _one_of(codes, operations, rng):
    """Where one of the operations with these codes is; where there are none, anywhere."""
    places = [at for at, operation in enumerate(operations) if operation[0] in codes]
    return rng.choice(places) if places else rng.randrange(len(operations))


def change_operations(operations, pool, rng):
    """Does one thing that knows of pickles, and returns what."""
    name = rng.choice(("drop", "repeat", "swap", "any", "integer", "memo", "text", "name", "nest"))
    at, to = rng.randrange(len(operations)), rng.randrange(len(operations))
    asked = craft.named(*rng.choice(GLOBALS).split())
    match name:
        case "drop":
            del operations[at : at + rng.choice((1, 1, 2, 5, 20))]
        case "repeat":  # keys twice, storages twice, memo entries twice
            piece = operations[at : at + rng.choice((1, 2, 5, 20, 100))]
            to = rng.choice((at, to))
            operations[to:to] = piece * rng.choice((1, 1, 2, 50))
        case "swap":
            operations[at], operations[to] = operations[to], operations[at]
        case "any":  # of any checkpoint, or without an argument, inserted or in the place of one
            operations[at : at + rng.randrange(2)] = [rng.choice(rng.choice((pool, PLAIN)))]
        case "integer":  # a size, offset, stride or count
            place = _one_of(b"KMJ\x8a\x8b", operations, rng)
            operations[place] = craft.integer(rng.choice(EXTREMES))
        case "memo":
            index = struct.pack("<I", rng.choice((0, 1, 5, 50, 2**31, 2**32 - 1)))
            operations[_one_of(b"qrhj\x94", operations, rng)] = rng.choice((b"r", b"j")) + index
        case "text":  # a key of a storage, say: another, none, a long one or a false length
            others = [operation for operation in operations if operation[:1] == b"X"] or [b"N"]
            length = struct.pack("<I", rng.choice(EXTREMES) % 2**32)
            texts = (
                *(rng.choice(others), craft.text(""), b"X" + length + b"abc", b"C\x03abc"),
                *(craft.text("\U0001f600" * rng.choice((1, 100, 9000))), b"T" + length + b"abc"),
                b"\x8d" + struct.pack("<Q", rng.choice(EXTREMES) % 2**64),
            )
            operations[_one_of(b"XU\x8cT", operations, rng)] = rng.choice(texts)
        case "name":  # in the place of a class or function, or made or called anywhere
            place = rng.choice((_one_of(b"c\x93", operations, rng), at))
            operations[place : place + rng.randrange(2)] = [asked + rng.choice((b"", *MADE))]
        case "nest":  # the same thousands of times, within itself, or twice what was there
            times, known = rng.randrange(2, MAX_NESTING), rng.choice(operations)
            doubled = b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(100))
            bombs = (
                *(rng.choice(NESTED) * times, b"]" * times + b"a" * (times - 1)),
                *(b"Nq\x00" + doubled, (known + rng.choice(NESTED)) * min(times, 300)),
            )
            operations.insert(at, rng.choice(bombs))
    return name


def change_entries(rest, rng):
    """Damages what is beside the pickles: storages and zip entries."""
    key = rng.choice(list(rest))
    content, at = bytearray(rest[key]), rng.randrange(len(rest[key]) + 1)
    match rng.randrange(5):
        case 0:
            del content[at : at + rng.choice((1, 8, 100))]
        case 1:
            content[at:at] = bytes(rng.choice((1, 8, 100)))
        case 2:
            content[at : at + 8] = struct.pack("<q", rng.choice((-1, 2**31, 2**63 - 1)))
        case 3 if key:
            del rest[key]
            key = rng.choice((key + "x", "archive/data/w", "other/data.pkl", "", "x" * 60_000))
        case _:
            content = bytearray(rest[rng.choice(list(rest))])
    rest[key] = bytes(content)
    return "entries"


def change_bytes(content, other, rng):
    """Does one thing to a file that knows nothing of it, and returns what."""
    name = rng.choice(("flip", "splice", "truncate", "duplicate", "number", "header"))
    at, length = rng.randrange(len(content)), rng.randrange(1, 2000)
    value = (rng.choice((*EXTREMES, rng.randrange(2**16))) % 2**64).to_bytes(8, "little")
    value = value[: rng.choice((1, 2, 4, 8))]
    match name:
        case "flip":
            for _ in range(rng.choice((1, 2, 8))):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        case "splice":
            start = rng.randrange(len(other))
            content[at : at + rng.choice((0, length))] = other[start : start + length // 10]
        case "truncate":
            one, two = sorted((at, rng.randrange(len(content))))
            start, stop = rng.choice(((one, len(content)), (0, one), (one, two)))
            del content[max(start, 1) : stop]
        case "duplicate":
            content[at:at] = content[at : at + length]
        case "number":
            content[at : at + len(value)] = value
        case "header":  # of a zip file, or of its end
            mark = rng.choice((b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))
            places = [at for at in range(len(content) - 4) if content[at : at + 4] == mark]
            at = (rng.choice(places) if places else 0) + 4 + rng.randrange(42)
            content[at : at + len(value)] = value
    return name


class Maker:
    """Makes files from undamaged ones."""

    def __init__(self, contents, seed):
        self._parts = [taken_apart(content) for content in contents.values()]
        self._contents = list(contents.values())
        self._seed = seed
        pickles = [operations for parts in self._parts for operations in parts.pickles]
        self._pool = sorted(set().union(*pickles))

    def file(self, number):
        """Returns what was done to make file ``number``, and its bytes."""
        rng = random.Random(f"{self._seed}/{number}")
        done, parts = [], rng.choice(self._parts)
        if rng.random() < 0.75:
            pickles, rest = [list(operations) for operations in parts.pickles], dict(parts.rest)
            # Of a legacy file the fourth has the content.
            chosen = pickles[rng.choice((3, 3, 3, 3, rng.randrange(5))) if parts.legacy else 0]
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                if rng.random() < 0.1 or not chosen:
                    done.append(change_entries(rest, rng))
                else:
                    done.append(change_operations(chosen, self._pool, rng))
            parts = Parts(parts.legacy, pickles, rest)
        content = bytearray(put_together(parts))
        if not done or rng.random() < 0.1:
            for _ in range(rng.choice((1, 1, 2))):
                done.append(change_bytes(content, rng.choice(self._contents), rng))
        return done, bytes(content[:MAX_BYTES])
