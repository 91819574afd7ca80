"""Dict keys and numbers that were chosen to make reading slow are refused while it is still fast.

Version 0.1 took 68 s for the 64,000 tuples, and for more integers as long as one likes.
"""

import functools
import struct
import time

import numpy as np
import pytest

from flowad_jax.weights import torch_file, unpickler
from tests.weights import collisions, craft

SECONDS = 4.0  # a hundred times what the slowest case takes where nothing else runs


@functools.cache
def integers(most=2**59):
    return collisions.integers(21_000, most)


@functools.cache
def tuples():
    return collisions.tuples(64_000)


def long_tuples():
    return [(0,) * 14 + pair for pair in tuples()[:20_000]]  # equal hashes, equal beginnings


def set_in_a_dict(keys):
    return b"}(" + b"".join(collisions.pickled(key) + b"N" for key in keys) + b"u"


def set_one_by_one(keys):
    return b"}" + b"".join(collisions.pickled(key) + b"Ns" for key in keys)


def built(module, name):
    """A dict that is made of a list of pairs, or filled after it was made."""

    def body(keys):
        pairs = b"".join(collisions.pickled(key) + b"N\x86" for key in keys)
        return craft.named(module, name) + b"](" + pairs + b"e\x85R"

    return body


def filled(module, name):
    return lambda keys: craft.named(module, name) + b")R" + set_in_a_dict(keys)[1:]


def memo(keys):
    return b"}" + b"".join(b"r" + struct.pack("<I", key) for key in keys)


DEFAULT = craft.named("collections", "defaultdict")
FAMILIES = {
    "tuples": (tuples, set_in_a_dict),
    "tuples one by one": (tuples, set_one_by_one),
    "tuples in a defaultdict": (tuples, filled("collections", "defaultdict")),
    "long tuples": (long_tuples, set_in_a_dict),
    "integers": (integers, set_in_a_dict),
    "integers one by one": (integers, set_one_by_one),
    "integers in an OrderedDict": (integers, built("collections", "OrderedDict")),
    "integers in an AttributeDict": (
        integers,
        filled("lightning.fabric.utilities.data", "AttributeDict"),
    ),
    "floats": (lambda: [float(key) for key in integers()], set_in_a_dict),
    "integers in tuples": (lambda: [(key,) * 3 for key in integers()], set_in_a_dict),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_chosen_keys_are_refused_soon(tmp_path, refused, name):
    keys, body = FAMILIES[name]
    path = craft.zip_file(tmp_path / "a.pth", body(keys()))
    start = time.process_time()
    refused(path, "pickle operations", foreign=True)
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("name", ["integers", "integers one by one", "integers in an OrderedDict"])
def test_so_they_are_beside_tensors_alone(tmp_path, refused, name):
    keys, body = FAMILIES[name]
    refused(craft.zip_file(tmp_path / "a.pth", body(keys())), "pickle operations")


def test_comparisons_are_bounded_by_the_operations_that_they_cost():
    """Whatever the order of keys: no more comparisons than 4 for each operation."""

    class Counted(unpickler.Budget):
        spent = 0

        def spend(self, count=1):
            self.spent += count
            super().spend(count)

    rng = np.random.default_rng(0)
    for parts in (1, 2, 16):
        budget, target = Counted(), {}
        for key in rng.permutation(800) + 10_000:
            key = int(key) if parts == 1 else (int(key),) * parts
            unpickler.set_keys(target, [(key, None)], budget, check=lambda key: key)
        comparisons = parts * len(target) * (len(target) - 1) / 2
        assert comparisons <= unpickler.COMPARISONS * (budget.spent + len(target))


def test_numbers_of_the_memo_are_no_keys(tmp_path, refused):
    path = craft.zip_file(tmp_path / "a.pth", memo(integers(unpickler.MAX_OPERATIONS)))
    start = time.process_time()
    assert torch_file.read(path) == {}
    assert time.process_time() - start < SECONDS
    refused(craft.zip_file(path, memo([2**31])), "number 2147483648")
    refused(craft.zip_file(path, b"}r\x05\0\0\0h\x03"), "not kept, number 3")


def test_names_of_storages_are_compared_once(tmp_path, refused):
    """A long name that is listed again and again was compared again and again by sorting."""
    name, count = "x" * 10_000_000, 100_000
    body = b"}(" + b"".join(craft.text(str(i)) + b"N" for i in range(3)) + b"u"
    path = craft.legacy_file(tmp_path / "a.pth", body, {}, keys=[name] * count)
    start = time.process_time()
    refused(path, "does not list the storages")
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("opcode", [b"I", b"L"])
def test_long_decimal_numbers(tmp_path, refused, opcode):
    """Python takes a time for them that grows with the square of their length."""
    path = craft.zip_file(tmp_path / "a.pth", opcode + b"9" * 2_000_000 + b"L\n")
    start = time.process_time()
    refused(path, foreign=True)
    assert time.process_time() - start < SECONDS


def test_keys_that_honest_files_have_stay_free(tmp_path):
    """States of optimizers count their parameters, class lists have an entry for each class."""
    counted = dict.fromkeys(range(50_000))
    few = {(epoch, "loss"): None for epoch in range(1000)} | {0.5: None, None: None, -1: None}
    texts = {f"class {index}": None for index in range(100_000)}
    parts = (set_in_a_dict(counted), set_in_a_dict(few), set_in_a_dict(texts))
    path = craft.zip_file(tmp_path / "a.pth", craft.many(*parts))
    found = torch_file.read(path, foreign=True)
    assert found == (counted, few, texts)
