import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from flowad_jax.weights import store, torch_file
from tests.weights import craft

RNG = np.random.default_rng(0)
TENSORS = {
    "weight": RNG.standard_normal((4, 3, 2)).astype(np.float32),
    "half": RNG.standard_normal(5).astype(np.float16),
    "count": np.array(7, np.int64),
    "flags": np.array([True, False, True]),
    "nothing": np.zeros((0, 3), np.float32),
}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("legacy", [False, True])
def test_reads_every_tensor_bit_for_bit(tmp_path, legacy):
    path = craft.checkpoint(tmp_path / "a.pth", TENSORS, legacy)
    assert_same(torch_file.state_dict(path), TENSORS)


@pytest.mark.parametrize("legacy", [False, True])
def test_strided_views_share_their_storage(tmp_path, legacy):
    base = np.arange(24, dtype=np.float32)
    stored = craft.storage("s", "float32", 24)
    body = craft.mapping(
        {
            "transposed": craft.tensor(stored, 0, (6, 4), (1, 6)),
            "offset": craft.tensor(stored, 5, (2, 3), (7, 2)),
            "repeated": craft.tensor(stored, 3, (5, 2), (0, 1)),
        }
    )
    write = craft.legacy_file if legacy else craft.zip_file
    data = base if legacy else base.tobytes()
    found = torch_file.read(write(tmp_path / "a.pth", body, {"s": data}))
    np.testing.assert_array_equal(found["transposed"], base.reshape(4, 6).T)
    np.testing.assert_array_equal(found["offset"], [[5, 7, 9], [12, 14, 16]])
    np.testing.assert_array_equal(found["repeated"], [[3, 4]] * 5)
    assert np.shares_memory(found["transposed"], found["offset"])


def test_legacy_view_of_a_storage(tmp_path):
    base = np.arange(10, dtype=np.float32)
    view = craft.many(craft.text("v"), craft.integer(4), craft.integer(3))
    stored = craft.storage("s", "float32", 10, view)
    body = craft.mapping({"part": craft.tensor(stored, 1, (2,), (1,))})
    path = craft.legacy_file(tmp_path / "a.pth", body, {"s": base})
    np.testing.assert_array_equal(torch_file.read(path)["part"], [5, 6])


def test_plain_containers(tmp_path):
    body = craft.mapping(
        {
            "epoch": craft.integer(3),
            "name": craft.text("größe"),
            "rate": b"G" + struct.pack(">d", 0.1),
            "list": b"](" + craft.integer(1) + b"\x88Ne",
            "old text": b"U\x03abc",
            "size": craft.named("torch", "Size") + craft.numbers((2, 3)) + b"\x85R",
            "dtype": craft.named("torch", "bfloat16"),
        }
    )
    assert torch_file.read(craft.zip_file(tmp_path / "a.pt", body)) == {
        "epoch": 3,
        "name": "größe",
        "rate": 0.1,
        "list": [1, True, None],
        "old text": "abc",
        "size": (2, 3),
        "dtype": "torch.bfloat16",
    }


@pytest.mark.parametrize("key", torch_file.STATE_DICT_KEYS)
def test_finds_the_nested_state_dict(tmp_path, key):
    inner = craft.mapping({"module.weight": craft.whole("w", TENSORS["weight"])})
    body = craft.mapping({"epoch": craft.integer(3), key: inner})
    path = craft.zip_file(tmp_path / "a.pth", body, {"w": TENSORS["weight"].tobytes()})
    assert_same(torch_file.state_dict(path), {"module.weight": TENSORS["weight"]})


def test_no_or_two_state_dicts_are_refused(tmp_path, refused):
    weight, data = craft.whole("w", TENSORS["half"]), {"w": TENSORS["half"].tobytes()}
    inner = craft.mapping({"weight": weight})
    path = tmp_path / "a.pth"
    for body, words in {
        craft.mapping({"state_dict": inner, "model": inner}): ["several", "'model': dict"],
        craft.mapping({"net": inner, "epoch": b"N"}): ["no flat state dict", "'net': dict"],
        craft.mapping({"weight": weight, "epoch": craft.integer(3)}): ["'epoch': int"],
        b"]": ["list", "state_dict()"],
        b"}": ["no flat state dict"],
    }.items():
        refused(craft.zip_file(path, body, data), *words, reader=torch_file.state_dict)


def test_safetensors(tmp_path):
    tensors = {name: np.asarray(array, order="C") for name, array in TENSORS.items()}
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(tensors, path)
    found = torch_file.state_dict(path)
    assert_same({name: found[name] for name in TENSORS}, TENSORS)


def test_the_embedded_file():
    path = store.embedded("efficientnet_lite.efficientnet_lite0")
    store.check_name_hash(path)
    found = torch_file.state_dict(path)
    assert len(found) == 296
    assert found["_conv_stem.weight"].shape == (32, 3, 3, 3)
    # The last of the file: an offset error anywhere before it would show.
    assert found["_fc.bias"].shape == (1000,)
    assert abs(found["_fc.bias"]).max() < 1
    assert all(np.isfinite(array).all() for array in found.values())


def test_paths_that_are_no_file(tmp_path, refused):
    refused(tmp_path / "missing.pth", "does not exist")
    refused(tmp_path, "is not a file")
    empty = tmp_path / "empty.pth"
    empty.touch()
    refused(empty, "is empty")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"<!DOCTYPE html><title>404</title>", "<!DOCTYPE html>"),
        (b"\0" * 257 + b"ustar" + b"\0" * 250, "tar format"),
        (b"PK\x03\x04" + b"\0" * 40, "zip"),
        (b"\x80\x02}q\x00.", "no PyTorch weight file"),
    ],
)
def test_other_files(tmp_path, refused, content, word):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    refused(path, word)


def test_zips_of_other_programs(tmp_path, refused):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"123")
    refused(path, "no single data.pkl")
    refused(craft.zip_file(path, b"}", byteorder=b"big"), "big-endian")
    refused(craft.zip_file(path, b"}", extra={"constants.pkl": b""}), "TorchScript")


def test_legacy_headers(tmp_path, refused):
    path = tmp_path / "a.pth"
    refused(craft.legacy_file(path, b"}", little_endian=False), "big-endian")
    refused(craft.legacy_file(path, b"}", protocol=1002), "version 1002")


@pytest.mark.parametrize("content", [b"\2\0\0\0\0\0\0\0{}xx", b"\xff" * 8 + b"{", b"abc"])
def test_broken_safetensors(tmp_path, refused, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    refused(path, "damaged")


@pytest.mark.parametrize("legacy", [False, True])
def test_truncation_is_always_noticed(tmp_path, refused, legacy):
    content = craft.checkpoint(tmp_path / "whole.pth", TENSORS, legacy).read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(1, len(content), 7):
        path.write_bytes(content[:length])
        refused(path)


def test_a_flipped_payload_byte_is_noticed(tmp_path, refused):
    path = craft.checkpoint(tmp_path / "a.pth", TENSORS)
    content = bytearray(path.read_bytes())
    content[content.index(TENSORS["weight"].tobytes()) + 5] ^= 1
    path.write_bytes(content)
    refused(path, "checksum", "archive/data/weight")
