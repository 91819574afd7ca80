"""Weight files of ours: whole or not there, and refused where a bit has changed."""

import hashlib
import json
import resource

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from flowad_jax.encoders.families import resnet
from flowad_jax.errors import UserError
from flowad_jax.weights import store
from flowad_jax.weights.torch_file import WeightFileError
from tests.weights.references import assert_same

VARIABLES = {
    "params": {
        "conv": {"kernel": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)},
        "bn": {"scale": np.ones(4, np.float32), "bias": np.zeros((), np.float32)},
    },
    "batch_stats": {"bn": {"mean": np.full(4, 2, np.float32)}},
    "buffers": {"order": np.array([2, 0, 1], np.int32), "none": np.zeros((0, 3), np.float32)},
}
SUFFIX = pytest.mark.parametrize("suffix", store.SUFFIXES)


def test_card(tmp_path):
    source = tmp_path / "source.pth"
    source.write_bytes(b"some weights")
    card = store.describe(resnet.SPECS["resnet18"], source, VARIABLES)
    assert card["architecture"] == "resnet.resnet18"
    assert card["source"] == {
        "file": "source.pth",
        "bytes": 12,
        "sha256": hashlib.sha256(b"some weights").hexdigest(),
        "published_as": {
            "file": "resnet18-f37072fd.pth",
            "source": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
            "licence": "BSD-3-Clause",
            "megabytes": 46.8,
        },
    }
    assert card["sizes"] == {"bytes": 4 * (24 + 4 + 1 + 4 + 3), "tensors": 6, "parameters": 29}
    assert card["normalisation"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert card["versions"].keys() == {"flowad_jax", "jax", "flax", "numpy"}


@SUFFIX
def test_there_and_back(tmp_path, suffix):
    path, card = tmp_path / f"a{suffix}", {"architecture": "größe", "sizes": [1, None]}
    store.save(path, VARIABLES, card)
    variables, found = store.load(path)
    assert_same(variables, VARIABLES)
    assert found == card == json.loads((tmp_path / "a.card.json").read_text())
    assert {p.name for p in tmp_path.iterdir()} == {f"a{suffix}", "a.card.json"}
    kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tree = {"a": kernel.transpose(2, 0, 1), "b": jnp.asarray(kernel), "c": kernel[::-1]}
    store.save(path, {"params": tree}, {})
    assert_same(store.load(path)[0]["params"], tree | {"b": kernel})


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
    (tmp_path / f"folder{suffix}").mkdir()
    for name, reason in ((f"file/a{suffix}", "file/a"), (f"folder{suffix}", "directory")):
        with pytest.raises(UserError, match=f"cannot write .*{reason}"):
            store.save(tmp_path / name, VARIABLES, {})
    for act in (lambda path: store.save(path, VARIABLES, {}), store.load):
        with pytest.raises(UserError, match=r"a\.pth: .* \.safetensors or \.npz"):
            act(tmp_path / "a.pth")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", f"folder{suffix}"]


def test_files_that_are_not_ours(tmp_path, refused):
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    for suffix in store.SUFFIXES:
        refused(tmp_path / f"a{suffix}", "flowad convert", reader=store.load)
    # What would unpickle, or inflate.
    np.savez(tmp_path / "a.npz", a=np.array([{}], object))
    refused(tmp_path / "a.npz", reader=store.load)
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10**6))
    refused(tmp_path / "a.npz", "compressed", reader=store.load)


def test_hash_in_the_name(tmp_path, refused):
    digest = hashlib.sha256(b"weights").hexdigest()
    for name in ("net-1.pth", "net.pth", "a-beef.pth", f"n-{digest[:8]}.pth", f"n-{digest}.pth"):
        (tmp_path / name).write_bytes(b"weights")
        store.check_name_hash(tmp_path / name)
    wrong = tmp_path / "resnet18-f37072fd.pth"
    wrong.write_bytes(b"weights")
    refused(wrong, "f37072fd", digest, "rename it", reader=store.check_name_hash)
    with pytest.raises(WeightFileError, match="does not exist"):
        store.sha256(tmp_path / "missing.pth")
