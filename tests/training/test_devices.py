"""One device, eight devices, two processes: the same parameters, losses and metrics."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from flowad_jax import parallel
from flowad_jax.errors import UserError
from flowad_jax.training import metrics_log
from tests.training import multi_device_worker

METHODS = ("cflow", "sanflow", "msflow", "ssnf")
ENDS = "ends.npz"

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """How the runs end on one device."""
    folder = tmp_path_factory.mktemp("alone")
    multi_device_worker.main(folder, ",".join(METHODS))
    return folder


def start(folder, methods, devices, *job):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-m", multi_device_worker.__name__, str(folder), methods, *job]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def end(processes):
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-2000:]


def assert_same(folder, alone, methods, devices):
    """Rounding differs where sums are cut at other places, and Adam divides small by small."""
    expected, found = np.load(alone / ENDS), np.load(folder / ENDS)
    assert found["devices"] == devices
    names = [name for name in expected.files if name.startswith(methods)]
    assert {*names, "devices"} == set(found.files)
    for name in names:
        scale = np.max(np.abs(expected[name]), initial=1e-3)
        np.testing.assert_allclose(found[name], expected[name], 0, 2e-4 * scale, err_msg=name)
    for method in methods:
        rows = [metrics_log.read(path / method) for path in (folder, alone)]
        for one, other in zip(*rows, strict=True):
            for key in (key for key in one if key.startswith(("loss", "holdout"))):
                np.testing.assert_allclose(one[key], other[key], rtol=2e-5, err_msg=key)


def test_eight_devices_end_like_one(alone, tmp_path):
    end([start(tmp_path, ",".join(METHODS), 8)])
    assert_same(tmp_path, alone, METHODS, 8)


def test_two_processes_of_two_devices_end_like_one(alone, tmp_path):
    """SSNF's batches are pairs: clean images of both come before the synthetic ones of both."""
    methods = ("cflow", "ssnf")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    jobs = [start(tmp_path, ",".join(methods), 2, address, "2", str(n)) for n in range(2)]
    end(jobs)
    assert_same(tmp_path, alone, methods, 4)
    assert not list((tmp_path / "cflow").glob("*.tmp"))


def test_a_single_device_needs_no_mesh():
    devices = parallel.devices(8)
    assert (devices.mesh, devices.count) == (None, 1)
    tree = {"a": np.ones(3)}
    assert devices.replicate(tree) is tree
    assert devices.shard_minibatches(tree) is tree


def test_batches_that_devices_cannot_share(monkeypatch, caplog):
    monkeypatch.setattr(parallel.jax, "device_count", lambda: 8)
    monkeypatch.setattr(parallel.jax, "devices", lambda: [None] * 8)
    assert parallel.devices(11) == parallel.Devices()
    monkeypatch.setattr(parallel, "Mesh", lambda devices, *args, **kwargs: devices)
    assert len(parallel.devices(15).mesh) == 5
    monkeypatch.setattr(parallel.jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"train\.batch_size=12 cannot be divided among 8 devices"):
        parallel.devices(12)


def test_hosts_that_are_not_there(tmp_path):
    """Outside of a cluster somebody has to say who the others are."""
    command = [
        *(sys.executable, "train.py", "--config=configs/quickstart.py", "--distributed"),
        f"--workdir={tmp_path / 'run'}",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: --distributed: ")
    assert "--coordinator=HOST:PORT" in ended.stderr
