"""The program in an exported detector: flags, output folder, exit codes, and no JAX."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from flowad_jax.flowad_runtime import program
from flowad_jax.inference import job
from flowad_jax.inference.pictures import heatmap
from tests.bundle import stub
from tests.inference.stub import lines, picture, snapshot, summary


@pytest.fixture
def bundle(tmp_path):
    return stub.write(tmp_path / "a.flowad")


def run(bundle, *flags):
    """Judges the folder ``in`` beside the detector into ``out``."""
    folder = bundle.parent
    words = [f"--input={folder / 'in'}", f"--output={folder / 'out'}", *flags]
    return program.main(bundle, "help", words)


def table(folder):
    with (folder / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_same_lines_as_the_package(tmp_path, bundle, monkeypatch):
    picture(tmp_path / "in" / "good.png")
    picture(tmp_path / "in" / "line 2" / "bad.png", spot=True)
    (tmp_path / "in" / "broken.png").write_text("no image")
    (tmp_path / "in" / "notes.txt").write_text("none")
    monkeypatch.setattr(job.loading, "load", lambda *_: stub.Bright(stub.read(bundle)))
    assert job.run(job.PredictArgs("run", [str(tmp_path / "in")], str(tmp_path / "out"))) == 1
    expected, rows, about = lines(tmp_path), table(tmp_path), summary(tmp_path)
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.tiff")}
    (tmp_path / "out").rename(tmp_path / "package")
    assert run(bundle) == 1
    for one, other, row, found in zip(
        lines(tmp_path), expected, table(tmp_path), rows, strict=True
    ):
        for key in ("seconds", "error"):
            assert (key in one) == (key in other)
            for values in (one, other, row, found):
                values.pop(key, None)
        assert one == other
        assert list(one) == list(other)
        assert row == found
    for path, content in before.items():
        assert path.read_bytes() == content
    found = summary(tmp_path)
    for key in ("images", "anomalous", "normal", "unreadable", "undecided", "skipped", "finished"):
        assert found[key] == about[key]
    assert found["calibration"] == about["calibration"]
    assert found["drift"] == about["drift"]
    assert found["drift"]["images"] == 2
    assert found["colour_scale"]["high"] == about["colour_scale"]["high"]


def test_pictures(tmp_path, bundle):
    picture(tmp_path / "in" / "a.png", spot=True)
    assert run(bundle, "--map_format=npy") == 0
    (line,) = lines(tmp_path)
    values = np.load(tmp_path / "out" / line["map"])
    assert (values.dtype, values.shape) == (np.float32, (20, 30))
    with Image.open(tmp_path / "out" / line["heatmap"]) as stored:
        expected = heatmap(values, summary(tmp_path)["colour_scale"]["high"])
        difference = np.asarray(stored).astype(int) - np.asarray(expected)
        assert np.abs(difference).max() <= 8
    with Image.open(tmp_path / "out" / line["overlay"]) as stored:
        assert stored.size == (30, 20)
        pixels = np.asarray(stored)
        assert (pixels[15, 25] == 40).all(), "where nothing is, the image shows"
        assert (pixels == [0x3F, 0xE0, 0xFF]).all(-1).any(), "an outline"


@pytest.mark.parametrize(
    ("images", "flags", "code"),
    [
        ([True], ["--fail_on_anomaly"], 3),
        ([True], [], 0),
        ([False], ["--fail_on_anomaly"], 0),
        ([False, True], ["--fail_on_anomaly"], 3),
        ([False], ["--fail_on_anomaly", "--threshold=0.1"], 3),
        ([True], ["--fail_on_anomaly", "--threshold=2", "--backend=openvino", "--threads=1"], 0),
        ([True], ["--fail_on_anomaly", "--false_alarm_rate=0.01"], 3),
    ],
)
def test_exit_codes(tmp_path, bundle, images, flags, code):
    for index, spot in enumerate(images):
        picture(tmp_path / "in" / f"{index}.png", spot)
    assert run(bundle, *flags) == code


def test_undecided_is_never_normal(tmp_path, capsys):
    bundle = stub.write(tmp_path / "a.flowad", normal=[[]])
    picture(tmp_path / "in" / "0.png")
    assert run(bundle, "--fail_on_anomaly") == 4
    assert "1 images: 1 undecided" in capsys.readouterr().out
    (line,) = lines(tmp_path)
    assert (line["anomalous"], line["p_value"]) == (None, None)
    assert "no images out" in line["reason"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--save=heat"], ["--map_format=png"], ["--batch_size=0"], ["--backend=torch"],
        ["--threshold=x"], ["--threads=-1"], ["--inputs=a"], ["word"], ["--tile"],
        ["--interval=-1"],
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line(bundle, capsys, flags):
    with pytest.raises(SystemExit) as caught:
        run(bundle, *flags)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("flag", ["--false_alarm_rate=2", "--threshold=nan", "--input=gone/"])
def test_faults_are_one_line_and_change_nothing(tmp_path, bundle, capsys, flag):
    picture(tmp_path / "in" / "a.png")
    assert run(bundle, flag) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_refused(tmp_path, bundle, capsys):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "out" / "holiday.png")
    before = snapshot(tmp_path)
    for flags in ([], ["--watch"]):
        assert run(bundle, *flags) == 1
        assert "holiday.png" in capsys.readouterr().err
    assert run(bundle, f"--output={tmp_path / 'in' / 'a.png'}") == 1
    assert snapshot(tmp_path) == before
    assert run(bundle, f"--output={tmp_path / 'new'}") == 0
    before = snapshot(tmp_path)
    assert run(bundle, f"--output={tmp_path / 'new'}") == 1
    assert "holds an earlier output" in capsys.readouterr().err
    assert snapshot(tmp_path) == before


def test_inputs(tmp_path, bundle):
    for name in ("b/1.png", "a.png", ".hidden/3.png", ".4.png", "b/c/=5,6.JPG", "out/7.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "in" / "b")
    out = f"--output={tmp_path / 'in' / 'out' / 'found'}"
    assert run(bundle, out, "--save=", f"--input={tmp_path}/in/b/*.png,{tmp_path}/in/a.png") == 0
    text = (tmp_path / "in" / "out" / "found" / "predictions.jsonl").read_text()
    names = [json.loads(line)["path"] for line in text.splitlines()]
    expected = ["a.png", "b/1.png", "b/c/=5,6.JPG", "out/7.png"]
    assert [name.split("/in/")[1] for name in names] == expected


def test_names_of_strangers(tmp_path, bundle):
    names = ["=cmd().png", "a\nb.png", "con.png", "same.png", "x/same.png", "ü" * 60 + ".png"]
    names.append(os.fsdecode(b"\xff.png"))
    for name in names:
        picture(tmp_path / "in" / name, spot=True)
    assert run(bundle) == 0
    found = lines(tmp_path)
    assert len({line["map"] for line in found}) == len(names)
    assert {os.path.basename(line["path"]) for line in found} == {
        os.path.basename(x) for x in names
    }
    assert all((tmp_path / "out" / line["overlay"]).is_file() for line in found)
    assert run(bundle, f"--input={tmp_path}/in/=cmd().png", f"--output={tmp_path}/b") == 0


BLOCKED = """
import runpy, sys
class No:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("jax", "jaxlib", "flowad_jax", "scipy", "skimage", "onnx"):
            raise ImportError(name + " is not there")
sys.meta_path.insert(0, No())
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    heavy = {"jax", "flowad_jax", "scipy", "skimage", "jsonschema", "absl"} & set(sys.modules)
    assert not heavy, heavy
"""


@pytest.mark.parametrize("words", [[], ["-c", BLOCKED]], ids=["script", "alone"])
def test_it_runs_without_the_package(tmp_path, words):
    bundle = stub.write(tmp_path / "a.flowad", runtime=True)
    picture(tmp_path / "in" / "a.png", spot=True)
    command = [sys.executable, "-I", *words, str(bundle / "run.py")]
    flags = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--fail_on_anomaly"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (3, "")
    assert "1 images: 1 anomalous" in done.stdout
    done = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert "no --tile" in done.stdout.replace("\n", " ")


def test_the_name_in_python(tmp_path):
    bundle = stub.write(tmp_path / "a.flowad", runtime=True)
    code = (
        "import sys; sys.path.insert(0, 'a.flowad'); import numpy\n"
        "from run import Detector\n"
        "print(Detector('a.flowad').predict(numpy.zeros((9, 9), 'uint8')))"
    )
    words = [sys.executable, "-I", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=bundle.parent)
    assert done.stdout == "Prediction(normal, score 0, p 1, 0 regions)\n", done.stderr


def test_a_real_detector_without_the_package(exported, run, tmp_path):
    """As `flowad predict` judges the same images."""
    images = run.parent / "images" / "test"
    assert job.run(job.PredictArgs(str(run), [str(images)], str(tmp_path / "a"), save=())) == 0
    flags = [f"--input={images}", f"--output={tmp_path / 'b'}", "--save="]
    command = [sys.executable, "-I", "-c", BLOCKED, str(exported.place / "run.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    texts = [(tmp_path / name / "predictions.jsonl").read_text() for name in "ab"]
    expected, found = ([json.loads(line) for line in text.splitlines()] for text in texts)
    assert len(found) == 6
    for one, other in zip(found, expected, strict=True):
        assert one["score"] == pytest.approx(other["score"], rel=1e-5)
        for key in ("path", "p_value", "anomalous", "decided_by", "width", "height"):
            assert one[key] == other[key]
