"""The detector of the shared run, and its bundle, which no test changes."""

import pytest

from flowad_jax.bundle import export
from flowad_jax.inference import loading


@pytest.fixture(scope="session", name="run")
def _run(tiny_run):
    return tiny_run[0] / "run"


@pytest.fixture(scope="session", name="trained")
def _trained(run):
    return loading.load(run)


@pytest.fixture(scope="session", name="exported")
def _exported(run, tmp_path_factory):
    return export.export(run, str(tmp_path_factory.mktemp("exported") / "screws.flowad"))
