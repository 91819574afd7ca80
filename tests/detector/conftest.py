"""Copies of one tiny run, to be damaged, and what reads them."""

import json
import shutil

import pytest

import flowad_jax
from flowad_jax.detector import checkpoint, workdir
from flowad_jax.detector.model import build_model
from flowad_jax.doctor.workdir import examine
from flowad_jax.errors import UserError
from flowad_jax.training import rescore
from flowad_jax.training.loop import train
from tests.conftest import shared_recipe

NEWEST, OLDER = 8, 6  # steps: four epochs of two batches


@pytest.fixture(name="root")
def _root(tiny_run):
    return tiny_run[0]


@pytest.fixture(scope="module", name="model")
def _model(tiny_run):
    return build_model(workdir.load_config(tiny_run[0] / "run"))


@pytest.fixture(name="path")
def _path(root, tmp_path):
    """A copy of the run."""
    return shutil.copytree(root / "run", tmp_path / "run")


@pytest.fixture(name="doors")
def _doors(root):
    """What reads a checkpoint."""
    return (
        flowad_jax.load,
        rescore.evaluate_workdir,
        lambda path: train(shared_recipe(root), path),
    )


def newest(path):
    return path / "checkpoints" / str(NEWEST)


def meta_file(path):
    return newest(path) / checkpoint.META


def content_of(path):
    return json.loads(meta_file(path).read_text())["content"]


def files_of(folder):
    return sorted(file for file in folder.rglob("*") if file.is_file())


def snapshot(folder):
    """Names, times and contents of everything below a folder."""
    return [
        (path, path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *sorted(folder.rglob("*"))]
        if path.name != ".lock"
    ]


def refused(function, *args):
    """The one line with which a call refuses."""
    with pytest.raises(UserError) as error:
        function(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


def problem_of(path):
    """The one problem that the doctor finds, with its remedy."""
    (problem,) = examine(str(path)).problems
    return problem
