"""Ways to damage a checkpoint, each small, most of them knowing what they damage."""

from __future__ import annotations

import pickletools
import random
import struct
from collections.abc import Callable

from tests.weights import craft

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

Operations = list[bytes]


def drop(operations: Operations, pool: Operations, rng: random.Random) -> None:
    """Leaves a few operations out."""
    at = rng.randrange(len(operations))
    del operations[at : at + rng.choice((1, 1, 2, 5, 20))]


def repeat(operations: Operations, pool: Operations, rng: random.Random) -> None:
    """Copies some to another place: keys twice, storages twice, memo entries twice."""
    at = rng.randrange(len(operations))
    piece = operations[at : at + rng.choice((1, 2, 5, 20, 100))]
    to = rng.choice((at, rng.randrange(len(operations))))
    operations[to:to] = piece * rng.choice((1, 1, 2, 50))


def swap(operations: Operations, pool: Operations, rng: random.Random) -> None:
    """Lets two change places."""
    one, other = rng.randrange(len(operations)), rng.randrange(len(operations))
    operations[one], operations[other] = operations[other], operations[one]


def insert(operations: Operations, pool: Operations, rng: random.Random) -> None:
    """Puts in one of any checkpoint, or any that has no argument."""
    at = rng.randrange(len(operations) + 1)
    operations.insert(at, rng.choice(rng.choice((pool, PLAIN))))


def replace(operations: Operations, pool: Operations, rng: random.Random) -> None:
    """Puts in one instead of another."""
    operations[rng.randrange(len(operations))] = rng.choice(rng.choice((pool, PLAIN)))


def _one_of(codes: bytes, operations: Operations, rng: random.Random) -> int:
    """Where one of the operations with these codes is; where there are none, anywhere."""
    places = [at for at, operation in enumerate(operations) if operation[0] in codes]
    return rng.choice(places) if places else rng.randrange(len(operations))


def integer(operations: Operations, pool: Operations, rng: random.Random) -> None:
    """Makes a size, offset, stride or count extreme."""
    at = _one_of(b"KMJ\x8a\x8b", operations, rng)
    operations[at] = craft.integer(rng.choice(EXTREMES))


def memo(operations: Operations, pool: Operations, rng: random.Random) -> None:
    """Writes or reads another place of the memo."""
    at, index = _one_of(b"qrhj\x94", operations, rng), rng.choice((0, 1, 5, 50, 2**31, 2**32 - 1))
    operations[at] = rng.choice((b"r", b"j")) + struct.pack("<I", index)


def text(operations: Operations, pool: Operations, rng: random.Random) -> None:
    """Replaces a text, a key of a storage say, by another, none, a long one or a false length."""
    at = _one_of(b"XU\x8cT", operations, rng)
    others = [operation for operation in operations if operation[:1] == b"X"] or [b"N"]
    length = struct.pack("<I", rng.choice(EXTREMES) % 2**32)
    operations[at] = rng.choice(
        (
            rng.choice(others),
            craft.text(""),
            craft.text("\U0001f600" * rng.choice((1, 100, 9000))),
            b"X" + length + b"abc",
            b"T" + length + b"abc",
            b"\x8d" + struct.pack("<Q", rng.choice(EXTREMES) % 2**64),
            b"C\x03abc",
        )
    )


def name(operations: Operations, pool: Operations, rng: random.Random) -> None:
    """Asks for another class or function."""
    asked = craft.named(*rng.choice(GLOBALS).split())
    operations[_one_of(b"c\x93", operations, rng)] = asked + rng.choice((b"", b"", CALL))


def call(operations: Operations, pool: Operations, rng: random.Random) -> None:
    """Puts in an object that is made or called."""
    asked = craft.named(*rng.choice(GLOBALS).split())
    made = rng.choice((CALL, b")R", b")\x81", b")}\x92", b")\x81}b", b")\x81NNs", b")\x81Na"))
    operations.insert(rng.randrange(len(operations) + 1), asked + made)


def nest(operations: Operations, pool: Operations, rng: random.Random) -> None:
    """Puts in a bomb: the same thousands of times, within itself, or twice what was there."""
    times, at = rng.randrange(2, MAX_NESTING), rng.randrange(len(operations) + 1)
    doubled = b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(100))
    known = rng.choice(operations)
    bombs = (rng.choice(NESTED) * times, b"]" * times + b"a" * (times - 1), b"Nq\x00" + doubled)
    operations.insert(at, rng.choice((*bombs, (known + rng.choice(NESTED)) * min(times, 300))))


OPERATIONS: dict[str, Callable[[Operations, Operations, random.Random], None]] = {
    function.__name__: function
    for function in (drop, repeat, swap, insert, replace, integer, memo, text, name, call, nest)
}


def entries(rest: dict[str, bytes], rng: random.Random) -> None:
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


def flip(content: bytearray, other: bytes, rng: random.Random) -> None:
    """Turns a few bits over."""
    for _ in range(rng.choice((1, 2, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def splice(content: bytearray, other: bytes, rng: random.Random) -> None:
    """Writes a piece of another file over, or between, the bytes."""
    start, at, length = (
        rng.randrange(len(other)),
        rng.randrange(len(content)),
        rng.randrange(1, 200),
    )
    content[at : at + rng.choice((0, length))] = other[start : start + length]


def truncate(content: bytearray, other: bytes, rng: random.Random) -> None:
    """Leaves the end out, or the start, or something between."""
    one, two = sorted(rng.randrange(len(content)) for _ in range(2))
    start, stop = rng.choice(((one, len(content)), (0, one), (one, two)))
    del content[max(start, 1) : stop]


def duplicate(content: bytearray, other: bytes, rng: random.Random) -> None:
    """Says a piece twice."""
    at = rng.randrange(len(content))
    content[at:at] = content[at : at + rng.randrange(1, 2000)]


def number(content: bytearray, other: bytes, rng: random.Random) -> None:
    """Writes an extreme number over the bytes somewhere."""
    at = rng.randrange(len(content))
    value = (rng.choice(EXTREMES) % 2**64).to_bytes(8, "little")[: rng.choice((1, 2, 4, 8))]
    content[at : at + len(value)] = value


def header(content: bytearray, other: bytes, rng: random.Random) -> None:
    """Writes an extreme number into a header of a zip file, or of its end."""
    mark = rng.choice((b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))
    places = [at for at in range(len(content) - 4) if content[at : at + 4] == mark]
    at = (rng.choice(places) if places else 0) + 4 + rng.randrange(42)
    value = (rng.choice((*EXTREMES, rng.randrange(2**16))) % 2**64).to_bytes(8, "little")
    width = rng.choice((1, 2, 4, 8))
    content[at : at + width] = value[:width]


BYTES: dict[str, Callable[[bytearray, bytes, random.Random], None]] = {
    function.__name__: function for function in (flip, splice, truncate, duplicate, number, header)
}
