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
from flowad_jax.serving import command
from flowad_jax.serving.command import Job
from tests.conftest import write_image
from tests.test_lock import held, refused

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[2]
# Runs predict.py up to the point where it has made a job of its flags.
SHOW_JOB = """
import json, runpy, sys, types
command = types.ModuleType("flowad_jax.serving.command")
command.Job = dict
command.run = lambda job: print(json.dumps(job)) or 3
sys.modules["flowad_jax.serving.command"] = command
sys.argv[0] = "predict.py"
runpy.run_path("predict.py", run_name="__main__")
"""
NEEDED = ("--workdir=run", "--input=a.png", "--output=out")


def script(*flags):
    words = [sys.executable, "-c", SHOW_JOB, *flags]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=ROOT)


def test_a_real_detector(run, tmp_path, capsys):
    workdir, new, out = run[0] / "run", tmp_path / "new", tmp_path / "out"
    write_image(new / "good.png", 300, size=(50, 70))
    write_image(new / "bad.png", 301, defect=True)
    (new / "notes.png").write_text("no image")

    code = command.run(Job(str(workdir), [str(new)], str(out), 0.4, map_format="npy"))

    assert code == 1
    assert "notes.png" in capsys.readouterr().err
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    bad, good, broken = lines
    assert "error" in broken
    assert (good["width"], good["height"]) == (70, 50)
    detector = flowad_jax.load(workdir, 0.4)
    for line in (bad, good):
        (alone,) = detector.predict([line["path"]])
        np.testing.assert_allclose(line["score"], alone.score, rtol=1e-6)
        assert (line["p_value"], line["anomalous"]) == (alone.p_value, alone.anomalous)
        np.testing.assert_allclose(np.load(out / line["map"]), alone.map, rtol=1e-5, atol=1e-6)
        with Image.open(out / line["overlay"]) as overlay:
            assert overlay.size == (line["width"], line["height"])
    summary = json.loads((out / "summary.json").read_text())
    assert summary["calibration"] == detector.thresholds
    assert (summary["images"], summary["unreadable"]) == (3, 1)


def test_an_output_has_one_owner(run, tmp_path):
    write_image(tmp_path / "new" / "1.png", 1)
    job = Job(str(run[0] / "run"), [str(tmp_path / "new")], str(tmp_path / "out"))
    with held(tmp_path / "out"):
        refused(tmp_path / "out", lambda: command.run(job))
        assert [file.name for file in (tmp_path / "out").iterdir()] == [".lock"]
    assert command.run(job) == 0


def test_flags_become_a_job():
    done = script(*NEEDED, "--input=b,c", "--false_alarm_rate=0.05", "--save=map", "--notile")
    assert done.returncode == 3  # what the job returns
    job = json.loads(done.stdout)
    assert set(job) == {field.name for field in dataclasses.fields(Job)}
    wanted = Job("run", ["a.png", "b,c"], "out", 0.05, save=["map"], allow_import=[])
    assert job == dataclasses.asdict(wanted)


@pytest.mark.parametrize("flag", ["--save=heat", "--map_format=png", "--interval=0", "--inputs=x"])
def test_wrong_usage_is_one_line(flag):
    done = script(*NEEDED, flag)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert flag.split("=")[0].lstrip("-") in done.stderr
