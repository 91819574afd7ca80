"""What good files hold is read to the bit; what is no weight file is refused."""

import argparse
import os
import pickle
import socket
import struct
import sys
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from flowad_jax.conversion import detector, encoder, explain
from flowad_jax.encoders import load, weight_files
from flowad_jax.errors import UserError
from flowad_jax.weights import store, torch_file
from flowad_jax.weights.foreign import Foreign
from tests.weights import craft, lightning_like
from tests.weights.references import TINY, assert_same

RNG = np.random.default_rng(0)
TENSORS = {
    "weight": RNG.standard_normal((4, 3, 2)).astype(np.float32),
    "half": RNG.standard_normal(5).astype(np.float16),
    "count": np.array(7, np.int64),
    "flags": np.array([True, False, True]),
    "nothing": np.zeros((0, 3), np.float32),
}
LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


@LEGACY
def test_reads_every_tensor_bit_for_bit(tmp_path, legacy):
    path = craft.checkpoint(tmp_path / "a.pth", TENSORS, legacy)
    assert_same(torch_file.state_dict(path), TENSORS)


@LEGACY
def test_strided_views_share_their_storage(tmp_path, legacy):
    base = np.arange(24, dtype=np.float32)
    stored = craft.storage("s", "float32", 24)
    views = {
        "transposed": craft.tensor(stored, 0, (6, 4), (1, 6)),
        "offset": craft.tensor(stored, 5, (2, 3), (7, 2)),
        "repeated": craft.tensor(stored, 3, (5, 2), (0, 1)),
    }
    found = torch_file.read(
        craft.file(tmp_path / "a.pth", craft.mapping(views), {"s": base}, legacy)
    )
    np.testing.assert_array_equal(found["transposed"], base.reshape(4, 6).T)
    np.testing.assert_array_equal(found["offset"], [[5, 7, 9], [12, 14, 16]])
    np.testing.assert_array_equal(found["repeated"], [[3, 4]] * 5)
    assert np.shares_memory(found["transposed"], found["offset"])


def test_a_legacy_storage_that_is_a_part_of_another(tmp_path):
    view = craft.many(craft.text("v"), craft.integer(4), craft.integer(3))
    body = craft.tensor(craft.storage("s", "float32", 10, view), 1, (2,), (1,))
    path = craft.legacy_file(tmp_path / "a.pth", body, {"s": np.arange(10, dtype=np.float32)})
    np.testing.assert_array_equal(torch_file.read(path), [5, 6])


def test_tensors_that_state_their_type(tmp_path):
    rebuild = craft.named("torch._utils", "_rebuild_tensor_v3")
    stored = craft.storage("s", "float32", 3)
    for module, name, expected in (("torch", "int32", [1, 2, 3]), ("torch", "x", None)):
        kind = craft.named(module, name)
        arguments = (stored, b"K\x00", b"K\x03\x85", b"K\x01\x85", b"\x89", b"N", kind)
        body = rebuild + craft.many(*arguments) + b"R"
        data = {"s": np.array([1, 2, 3], np.int32).tobytes()}
        path = craft.zip_file(tmp_path / "a.pth", body, data)
        if expected:
            np.testing.assert_array_equal(torch_file.read(path), expected)
        else:
            with pytest.raises(UserError, match=r"has a tensor of type 'torch\.x'"):
                torch_file.read(path)


def test_plain_containers(tmp_path):
    body = {
        "epoch": craft.integer(3),
        "name": craft.text("größe"),
        "rate": b"G" + struct.pack(">d", 0.1),
        "list": b"](" + craft.integer(1) + b"\x88Ne",
        "old text": b"U\x03abc",
        "size": craft.named("torch", "Size") + craft.numbers((2, 3)) + b"\x85R",
        "dtype": craft.named("torch", "bfloat16"),
    }
    assert torch_file.read(craft.zip_file(tmp_path / "a.pt", craft.mapping(body))) == {
        "epoch": 3,
        "name": "größe",
        "rate": 0.1,
        "list": [1, True, None],
        "old text": "abc",
        "size": (2, 3),
        "dtype": "torch.bfloat16",
    }


def check_lightning(found, protocol):
    """Compares what was read with what `lightning_like.content` holds."""
    with lightning_like.pretended_modules():
        saved = lightning_like.content({}, protocol)
    for key in ("epoch", "pytorch-lightning_version", "loops"):
        assert found[key] == saved[key]
    assert found["callbacks"] == {
        "ModelCheckpoint{'monitor': None}": {"kept": {(0, "a"): [1]}},
        "anomalib.data.task_type.TaskType": None,
    }
    hyper = found["hyper_parameters"]
    assert type(hyper) is dict
    assert list(hyper) == list(saved["hyper_parameters"])
    assert hyper["kind"] == "anomalib.models.settings.Settings"
    for key, value in hyper.items():
        if key not in ("kind", "raw"):
            assert type(value) is Foreign
            assert value.name.startswith(lightning_like.NAMES[key])
    assert "anomalib" not in sys.modules


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_objects_of_other_libraries_are_placeholders(tmp_path, protocol):
    path = craft.zip_file(tmp_path / "a.ckpt", lightning_like.body(protocol))
    check_lightning(torch_file.read(path), protocol)


BESIDE = {
    "numpy scalar": (np.float64(0.93), 2),
    "numpy scalar, protocol 4": (np.float64(0.93), 4),
    "numpy array": (np.arange(3), 2),
    "namespace": (argparse.Namespace(lr=0.1, best=np.float64(0.9), layers=[1, 2]), 2),
    "counters": ({(0, "a"): {1, 2}, 3: slice(1)}, 2),
}


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("key", torch_file.STATE_DICT_KEYS)
def test_finds_the_nested_state_dict_beside_objects(tmp_path, name, key):
    beside = pickle.dumps(*BESIDE[name])[2:-1]
    inner = craft.mapping({"module.weight": craft.whole("w", TENSORS["weight"])})
    body = craft.mapping({"epoch": craft.integer(3), "beside": beside, key: inner})
    path = craft.zip_file(tmp_path / "a.pth", body, {"w": TENSORS["weight"].tobytes()})
    assert_same(torch_file.state_dict(path), {"module.weight": TENSORS["weight"]})


def test_no_or_two_state_dicts_are_refused(tmp_path, refused):
    weight, data = craft.whole("w", TENSORS["half"]), {"w": TENSORS["half"].tobytes()}
    inner = craft.mapping({"weight": weight})
    namespace = craft.named("argparse", "Namespace") + b")\x81}b"
    path = tmp_path / "a.pth"
    for body, words in {
        craft.mapping({"state_dict": inner, "model": inner}): ["several", "'model': dict"],
        craft.mapping({"net": inner, "epoch": b"N"}): ["no flat state dict", "'net': dict"],
        craft.mapping({"weight": weight, "epoch": craft.integer(3)}): ["'epoch': int"],
        craft.mapping({"state_dict": craft.mapping({"a": namespace})}): ["'state_dict': dict"],
        craft.mapping({"state_dict": b"}", "args": namespace}): ["'args': Foreign"],
        namespace: ["holds a Foreign", "model.state_dict()"],
        b"]": ["list", "state_dict()"],
        b"}": ["no flat state dict"],
    }.items():
        refused(craft.zip_file(path, body, data), *words, reader=torch_file.state_dict)


def test_safetensors(tmp_path):
    tensors = {name: np.asarray(array, order="C") for name, array in TENSORS.items()}
    safetensors.numpy.save_file(tensors, tmp_path / "a.safetensors")
    assert_same(torch_file.state_dict(tmp_path / "a.safetensors"), TENSORS)


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


OTHER_FILES = {
    "<!DOCTYPE html>": b"<!DOCTYPE html><title>404</title>",
    "tar format": b"\0" * 257 + b"ustar" + b"\0" * 250,
    "zip": b"PK\x03\x04" + b"\0" * 40,
    "no PyTorch weight file": b"\x80\x02}q\x00.",
    "is empty": b"",
}


def test_other_files(tmp_path, refused):
    path = tmp_path / "a.pth"
    for word, content in OTHER_FILES.items():
        path.write_bytes(content)
        refused(path, word)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"123")
    refused(path, "no single data.pkl")
    refused(craft.zip_file(path, b"}", byteorder=b"big"), "big-endian")
    refused(craft.zip_file(path, b"}", extra={"constants.pkl": b""}), "TorchScript")
    refused(craft.legacy_file(path, b"}", little_endian=False), "big-endian")
    refused(craft.legacy_file(path, b"}", protocol=1002), "version 1002")
    refused(tmp_path / "missing.pth", "does not exist")
    refused(tmp_path, "is not a file")


@LEGACY
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


def _socket(path):
    os.chdir(path.parent)  # an address of a socket is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


NOT_FILES = {
    "named pipe": os.mkfifo,
    "link to a named pipe": lambda path: (os.mkfifo(f"{path}_"), path.symlink_to(f"{path}_")),
    "socket": _socket,
    "folder": lambda path: path.mkdir(),
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty device": lambda path: path.symlink_to("/dev/null"),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
}
OPENED = {
    "encoder.weights": lambda path: load.load(TINY, str(path)),
    "conversion": lambda path: encoder.convert(TINY, str(path), None),
    "conversion back": lambda path: encoder.export(TINY, str(path), None),
    "table": lambda path: weight_files.conversion_table(TINY, str(path)),
    "detector": detector.read,
    "table of a detector": explain.explained,
    "reader": torch_file.read,
    "state dict": torch_file.state_dict,
    "checksum": store.sha256,
    "card": lambda path: store.base_card(path, {}),
    "download": lambda path: store.require_hash(path, path.name, "delete it"),
}


@pytest.mark.parametrize("kind", NOT_FILES)
def test_what_is_named_like_a_weight_file_and_is_none(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    for suffix in (".pth", ".safetensors", ".npz"):
        path = tmp_path / f"net-01234567{suffix}"
        NOT_FILES[kind](path)
        for opened in OPENED.values():
            with pytest.raises(UserError) as caught:
                opened(path)
            assert path.name in str(caught.value)
            assert str(caught.value).isprintable()


@pytest.mark.parametrize("opened", ["reader", "checksum"])
def test_so_it_is_where_it_takes_the_place_of_a_file_at_the_last_moment(
    tmp_path, monkeypatch, opened
):
    path, stat, seen = tmp_path / "net.pth", type(tmp_path).stat, []

    def replaced(self, **options):
        status = stat(self, **options)
        seen.append(status)
        if len(seen) == 2:  # whether it is a file, and of what size
            path.unlink()
            os.mkfifo(path)
        return status

    path.write_bytes(b"PK")
    monkeypatch.setattr(type(tmp_path), "stat", replaced)
    with pytest.raises(UserError, match="named pipe"):
        OPENED[opened](path)
