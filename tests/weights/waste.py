"""Pickles made to fill the memory: each repeats what takes most bytes for its operations."""

import pickletools
import struct

import numpy as np

from tests.weights import craft

STORED = np.arange(6, dtype=np.float32)
_CLASS = craft.named("anomalib.models", "Patchcore") + b"q\x00"
_ATTRIBUTES = craft.named("lightning.fabric.utilities.data", "AttributeDict") + b"q\x00"


def _tensor_of_many_dimensions():
    rebuild = craft.named("torch._utils", "_rebuild_tensor_v2") + b"q\x00"
    ones = craft.numbers((1,) * 32)
    stored = craft.storage("s", "float32", 6)
    arguments = craft.many(stored, b"K\x00", ones, ones, b"\x89", b"N") + b"q\x01"
    return rebuild + arguments, b"h\x00h\x01R"


def _copies(module, name, ending):
    """Calls with a list of a thousand times a number and what ``ending`` makes of it."""
    function = craft.named(module, name) + b"q\x00"
    items = b"".join(b"M" + struct.pack("<H", index) + ending for index in range(1000))
    return function + b"](" + items + b"e\x85q\x01", b"h\x00h\x01R"


def _names(module, name):
    return craft.text(module) + b"q\x00" + craft.text(name) + b"q\x01", b"h\x00h\x01\x93"


# What comes once, and what is then repeated.
_REPEATED = {
    "nulls": (b"", b"N"),
    "marks": (b"", b"("),
    "dicts": (b"", b"}"),
    "dicts of one": (b"", b"}K\x01Ns"),
    "dicts of ten": (b"", b"}(" + b"".join(b"K%cN" % i for i in range(10)) + b"u"),
    "lists": (b"", b"]"),
    "lists of one": (b"", b"]Na"),
    "lists in lists": (b"]", b"]"),
    "tuples": (b"", b"N\x85"),
    "tuples in tuples": (b"N", b"\x85"),
    "integers": (b"", b"\x8a\x10" + b"\x7f" * 16),
    "numbers": (b"", b"G" + struct.pack(">d", 0.1)),
    "texts": (b"", b"\x8c\x04" + "\U0001f600".encode()),
    "texts as bytes": (b"", b"C\x01a"),
    "memo": (b"", b"}\x94"),
    "globals": _names("torch", "bfloat16"),
    "long names": _names("torch." + "x" * 90, "y" * 100),
    "tensors of 32 dimensions": _tensor_of_many_dimensions(),
    "copied dicts": _copies("collections", "OrderedDict", b"N\x86"),
    "copied sizes": _copies("torch", "Size", b""),
    "empty dicts": (craft.named("collections", "OrderedDict") + b"q\x00", b"h\x00)R"),
    "attribute dicts": (_ATTRIBUTES, b"h\x00)\x81"),
    "called": (_CLASS, b"h\x00)R"),
    "made": (_CLASS, b"h\x00)\x81"),
    "made with keywords": (_CLASS, b"h\x00)}\x92"),
    "nested": (_CLASS + b"Nq\x01", b"h\x00h\x01\x85Rq\x01"),
    "pairs": (_CLASS + b")R", b"NNs"),
    "items": (_CLASS + b")Rq\x01", b"h\x01a"),
    "states": (_CLASS, b"h\x00)R}b"),
    "sets": (b"", b"\x8f"),
    "frozen sets": (b"", b"(\x91"),
}
CASES = (*_REPEATED, "many keys", "many pairs")


def body(name, operations):
    """The pickle of a case with about ``operations`` operations."""
    if name == "many keys":
        keys = (b"J" + struct.pack("<i", index) + b"N" for index in range(operations // 2 - 20))
        return b"}(" + b"".join(keys) + b"u"
    if name == "many pairs":
        return _CLASS + b")R(" + b"N" * (operations - 20 - operations % 2) + b"u"
    once, again = _REPEATED[name]
    length = sum(1 for _ in pickletools.genops(again + b".")) - 1
    return once + again * (operations // length + 1)
