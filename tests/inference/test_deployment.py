"""The benchmark of exported detectors measures what it says, on a run that takes moments."""

import json
import os
import sys
import types

import numpy as np
import pytest

from benchmarks import deployment
from benchmarks.performance.jobs import Given
from flowad_jax.inference import loading

GIVEN = Given((0,), (8,), "normal", "float32", "0.2", "default")


def command(monkeypatch, **flags):
    words = [f"--{name}={value}" for name, value in flags.items()]
    monkeypatch.setattr(sys, "argv", ["deployment", *words])
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: None)
    deployment.main()


@pytest.mark.whole
def test_figures_are_complete(run, tmp_path, monkeypatch, capsys):
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name)
    output, sides = tmp_path / "deployment.json", "jax,onnxruntime,nobody"
    monkeypatch.setattr(deployment, "EXPORTED", ("onnxruntime",))
    monkeypatch.setitem(deployment.STARTS, "jax", "print({run!r}, {file!r})")  # it takes seconds
    flags = {"sides": sides, "seconds": 0.2, "turns": 1, "starts": 1, "output": output}
    command(monkeypatch, workdir=run[0] / "run", **flags)
    (found,) = json.loads(output.read_text())["runs"]
    assert (found["method"], found["files"], found["images"]["one"]) == ("cflow", 6, 1)
    assert found["bytes"]["checkpoint"] > found["bytes"]["model.onnx"] > 1000
    assert list(found["first_decision_s"]) == ["jax, empty cache", "jax", "onnxruntime"]
    assert all(0 < seconds < 100 for seconds in found["first_decision_s"].values())
    printed = capsys.readouterr().out
    for job, count in found["images"].items():
        cells = []
        for side in ("jax", "onnxruntime"):
            own = found["sides"][side][job]
            assert min(own["times_s"]) <= own["median_s"] <= max(own["times_s"])
            cells.append(f"{1000 * own['median_s'] / count:.1f} ms")
        assert f"| CFLOW-AD, {count} | {' | '.join(cells)} | - |" in printed
        assert f"CFLOW-AD, nobody, {count}: LookupError: no side 'nobody'." in printed


def test_files_are_judged_in_turn(run, files, monkeypatch):
    given = []
    monkeypatch.setattr(deployment, "_predictor", lambda *arguments: given.append)
    side = deployment.Side("jax", str(run[0] / "run"), "", GIVEN, files)
    one = side.prepare("one")
    assert given == [[file] for file in files]  # they are in the cache when the clock starts
    side._batch = 4
    many = side.prepare("batch")
    one(), one(), many()
    assert given[len(files) :] == [
        *(files[:4], [*files[4:], *files[:2]]),
        *([files[0]], [files[1]], files[2:]),
    ]


def test_pytorch_computes_but_the_real_detector_decides(run, files, monkeypatch):
    computed = []

    class Network:
        def __init__(self, config, given, words):
            computed.append((config.method.name, words))

        def start(self, job):
            assert job == "infer"

        def log_probs(self, image):
            computed.append(image)

    module = types.SimpleNamespace(TorchSide=Network)
    monkeypatch.setitem(sys.modules, "benchmarks.performance.torch_side", module)
    workdir = str(run[0] / "run")
    predict = deployment._predictor("torch compile", workdir, "", GIVEN)
    ours = loading.load(workdir)
    for expected, found in zip(ours.predict(files), predict(files), strict=True):
        assert found.score == pytest.approx(expected.score, rel=1e-5)
        np.testing.assert_allclose(found.map, expected.map, rtol=1e-4, atol=1e-6)
    assert computed[0] == ("cflow", ["compile"])
    assert sum(len(image) for image in computed[1:]) == len(files)
    assert computed[1].dtype == np.float32


def test_cells_compare_with_what_is_compiled():
    found = {"jax": {"median_s": 0.4}, "torch compile": {"median_s": 0.6}, "torch": {"error": "x"}}
    cells = [deployment._cell(found, side, 2) for side in found]
    assert cells == ["200.0 ms (**1.50**)", "300.0 ms", "-"]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ({"workdir": "nowhere"}, 1, "nowhere"),
        ({"workdir": "x", "turns": "0"}, 2, "--turns"),
        ({"workdir": "x", "images": "many"}, 2, "--images"),
    ],
)
def test_faults_are_one_line(flags, code, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, **flags)
    assert stop.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_start_that_fails_says_why():
    with pytest.raises(deployment.UserError, match="first decision failed: ValueError: broke"):
        deployment._start("raise ValueError('broke')", "", 0)
