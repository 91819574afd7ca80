"""The doctor's look at the installation, and its command line."""

import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from flowad_jax import memory
from flowad_jax.doctor import machine
from flowad_jax.doctor.findings import Section
from flowad_jax.errors import UserError
from flowad_jax.weights import store

pytestmark = pytest.mark.whole


def test_the_installation(ask):
    code, text = ask()
    assert code == 0, text
    for word in ("python", "jax", "distrax", "opencv-python-headless", "cpu:0", "checksum right"):
        assert word in text


def test_a_package_that_is_missing_or_broken(ask, monkeypatch):
    found = metadata.version

    def version(name):
        if name == "tqdm":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setitem(sys.modules, "optax", None)  # importing it fails
    code, text = ask()
    assert code == 1
    assert "tqdm is not installed" in text
    assert "optax cannot be imported" in text


def test_what_a_machine_lacks(ask, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "host", lambda: 2**29)
    monkeypatch.setattr(store, "embedded", lambda name: None)
    monkeypatch.setattr(machine.shutil, "which", lambda name: "a path")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    monkeypatch.delenv("JAX_PLATFORMS")
    code, text = ask()
    assert code == 1
    assert "only 512.0 MiB of memory are free" in text
    assert "only 1.0 MiB of disk are free in" in text
    assert "weights of efficientnet_lite.efficientnet_lite0 are not installed" in text
    assert "NVIDIA GPU that jax does not use" in text

    damaged = tmp_path / "weights-01234567.pth"
    damaged.write_bytes(b"damaged")
    monkeypatch.setattr(store, "embedded", lambda name: damaged)
    assert f"the embedded weights '{damaged}' are damaged" in ask()[1]


def test_memory_of_an_accelerator_is_shown():
    stats = {"bytes_limit": 8 * 2**30, "bytes_in_use": 2**30}
    device = SimpleNamespace(memory_stats=lambda: stats)
    assert machine._free(device) == ", 7.0 GiB of 8.0 GiB free"


def test_data_cannot_be_looked_at_without_a_package(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "flowad_jax.doctor.data", None)
    monkeypatch.delattr("flowad_jax.doctor.data", raising=False)
    code, text = ask("--data=x")
    assert code == 1
    assert "run 'flowad doctor' without flags" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dta=x"], "--dta=x"),
        (["--category=x"], "--category needs --data=FOLDER"),
        (["--data=x", "--image_size=0"], "--image_size=0: must be 1 or more"),
        (["--data=x", "--image_size=(32, 0)"], "--image_size=32,0: must be 1 or more, or HEIGHT,"),
        (["--data=x", "--image_size=wide"], "--image_size: invalid pixels value: 'wide'"),
        (["--data=x", "--name=fodler"], "did you mean 'folder'?"),
        (["--data=x", "--set=normal"], "--set=OPTION=VALUE"),
        (["--data=x", "--set=normel=ok"], "did you mean 'normal'?"),
        (["--data=x", "--set=white=bright"], "white='bright': must be a whole number"),
    ],
)
def test_wrong_usage_is_one_line(ask, words, message):
    code, text = ask(*words)
    assert code == 2
    assert message in text
    assert text.count("\n") == 1


def test_help_teaches(ask):
    code, text = ask("--help")
    assert code == 0
    assert "--name=magnetic_tile" in text
    assert "Exit code" in text


def test_a_refusal_is_split_into_problem_and_remedy():
    section = Section("")
    section.refused(UserError("cannot read 'a: b.png': it is damaged; replace it"))
    section.refused(UserError("cannot read 'a: b.png': it is damaged; replace it"))
    section.refused(UserError("without a remedy"))
    assert section.problems[0] == ("cannot read 'a: b.png': it is damaged", "replace it")
    assert section.problems[1][0] == "without a remedy"
    assert len(section.problems) == 2
