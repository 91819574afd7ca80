"""The detector of the shared run with its test images, and one that was not trained."""

import numpy as np
import pytest

from flowad_jax.inference import loading
from tests.inference.stub import Bright, use


@pytest.fixture(scope="session", name="run")
def _run(tiny_run):
    return tiny_run


@pytest.fixture(scope="session", name="trained")
def _trained(run):
    return loading.load(run[0] / "run")


@pytest.fixture(scope="session", name="files")
def _files(run):
    """The test images of the run, normal ones first."""
    test = run[0] / "images" / "test"
    return [test / kind / f"{i}.png" for kind in ("good", "spot") for i in range(3)]


@pytest.fixture(scope="session", name="pixels")
def _pixels():
    """An image that is no file."""
    return np.random.default_rng(5).integers(0, 255, (50, 70, 3)).astype(np.uint8)


@pytest.fixture
def detector(monkeypatch):
    """The stub, which is loaded whatever the workdir."""
    return use(monkeypatch, Bright())
