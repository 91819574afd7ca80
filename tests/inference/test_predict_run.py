"""predict.py with a real detector, and its flags."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import flowad_jax
from flowad_jax.inference import job
from flowad_jax.inference.job import PredictArgs
from tests.conftest import write_image
from tests.inference.stub import lines, picture, predict, summary
from tests.test_lock import held, refused

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[2]
# Runs predict.py up to the point where it has made arguments of its flags.
SHOW = """
import json, runpy, sys, types
job = types.ModuleType("flowad_jax.inference.job")
job.PredictArgs = dict
job.run = lambda args: print(json.dumps(args)) or 3
sys.modules["flowad_jax.inference.job"] = job
sys.argv[0] = "predict.py"
runpy.run_path("predict.py", run_name="__main__")
"""
NEEDED = ("--workdir=run", "--input=a.png", "--output=out")


def script(*flags):
    words = [sys.executable, "-c", SHOW, *flags]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=ROOT)


def test_a_real_detector(run, tmp_path, capsys):
    workdir, out = run[0] / "run", tmp_path / "out"
    write_image(tmp_path / "in" / "good.png", 300, size=(50, 70))
    write_image(tmp_path / "in" / "bad.png", 301, defect=True)
    (tmp_path / "in" / "notes.png").write_text("no image")

    args = PredictArgs(str(workdir), [str(tmp_path / "in")], str(out), 0.4, map_format="npy")
    assert job.run(args) == 1

    assert "notes.png" in capsys.readouterr().err
    bad, good, broken = lines(tmp_path)
    assert "error" in broken
    assert (good["width"], good["height"]) == (70, 50)
    detector = flowad_jax.load(workdir, 0.4)
    for line in (bad, good):
        (alone,) = detector.predict([line["path"]])
        np.testing.assert_allclose(line["score"], alone.score, rtol=1e-6)
        assert (line["p_value"], line["anomalous"]) == (alone.p_value, alone.anomalous)
        np.testing.assert_allclose(np.load(out / line["map"]), alone.map, rtol=1e-5, atol=1e-6)
        with Image.open(out / line["overlay"]) as overlay:
            assert overlay.width >= line["width"]  # a caption may need more
            assert overlay.height == line["height"] + 24  # its strip
    found = summary(tmp_path)
    assert found["calibration"] == detector.thresholds
    assert (found["images"], found["unreadable"]) == (3, 1)


def test_an_output_has_one_owner(detector, tmp_path):
    picture(tmp_path / "in" / "1.png")
    with held(tmp_path / "out"):
        refused(tmp_path / "out", lambda: predict(tmp_path))
        assert [file.name for file in (tmp_path / "out").iterdir()] == [".lock"]
    assert predict(tmp_path) == 0


def test_flags_become_arguments():
    done = script(*NEEDED, "--input=b,c", "--false_alarm_rate=0.05", "--save=map", "--notile")
    assert done.returncode == 3  # what the job returns
    wanted = PredictArgs("run", ["a.png", "b,c"], "out", 0.05, save=["map"], allow_import=[])
    assert json.loads(done.stdout) == dataclasses.asdict(wanted)


@pytest.mark.parametrize("flag", ["--save=heat", "--map_format=png", "--interval=0", "--inputs=x"])
def test_wrong_usage_is_one_line(flag):
    done = script(*NEEDED, flag)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert flag.split("=")[0].lstrip("-") in done.stderr
