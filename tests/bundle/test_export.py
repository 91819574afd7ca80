"""A run becomes a bundle that says the same, or nothing is left of the attempt."""

import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import pytest
from jax import export as jax_export
from onnx import numpy_helper

from flowad_jax import flowad_runtime
from flowad_jax.bundle import card, comparison, export, runtime, validate
from flowad_jax.bundle.card import GraphOptions
from flowad_jax.bundle.scorer import Scorer
from flowad_jax.errors import UserError
from flowad_jax.onnx import convert
from tests.bundle.test_place import snapshot


def refused(*args, **options):
    with pytest.raises(UserError) as error:
        export.export(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def moved(run, folder, root):
    """A copy of the run whose images are somewhere else."""
    shutil.copytree(run, folder)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["root"] = str(root)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_bundle_was_compared_with_all_test_images(exported):
    about = card.read(exported.place)
    assert exported.checked == "6 test images of the run"
    backends = {one["backend"]: one for one in about["checked"]}
    assert {"onnxruntime", "stablehlo"} <= set(backends)
    assert backends["onnxruntime"]["images"] == 6
    assert backends["stablehlo"]["images"] == 4
    assert all(one["score"] <= 1e-5 and one["map"] <= 1e-4 for one in about["checked"])
    assert about["batch"] == {"dynamic": True, "most": 7}
    assert set(card.NEEDED) < set(about["files"])
    text = export.shown(exported)
    assert "python screws.flowad/run.py --input=IMAGES --output=found" in text
    assert "6 test images" in text


def test_the_images_of_a_bundle(exported, trained):
    check = validate.read_check(exported.place / card.CHECK)
    judged = trained.predict(list(check.image))
    for row, found in enumerate(judged):
        assert check.score[row, 0] == pytest.approx(found.score, rel=1e-6)
        assert check.anomalous[row] == found.anomalous
    assert {*check.anomalous} == {0, 1}


def test_the_same_run_gives_the_same_bytes(exported, run, tmp_path):
    """Wherever it is written, also as a zip."""
    found = export.export(run, str(tmp_path / "screws.flowad.zip"))
    with zipfile.ZipFile(found.place) as packed:
        names = {name: packed.read(name) for name in packed.namelist()}
    written = [*card.read(exported.place)["files"], card.CARD]  # Python adds what it compiles
    expected = {f"screws.flowad/{name}": (exported.place / name).read_bytes() for name in written}
    assert names.keys() == expected.keys()
    assert [name for name in names if names[name] != expected[name]] == []
    assert "unzip screws.flowad.zip" in export.shown(found)


def test_the_runtime_alone_says_the_same(exported, trained, run, tmp_path):
    """Outside of this package, without what it needs."""
    images, out = run.parent / "images" / "test", tmp_path / "found"
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['jax', 'flowad_jax', 'scipy', 'skimage']))\n"
        "import runpy; sys.argv[0] = sys.argv.pop(1); runpy.run_path(sys.argv[0], None, '__main__')"
    )
    words = [str(exported.place / "run.py"), f"--input={images}", f"--output={out}", "--save="]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *words], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    for line, found in zip(lines, trained.predict([x["path"] for x in lines]), strict=True):
        assert line["score"] == pytest.approx(found.score, rel=1e-5)
        assert (line["anomalous"], line["p_value"]) == (found.anomalous, found.p_value)
        assert [one["area"] for one in line["regions"]] == [one.area for one in found.regions]


def test_other_graphs_and_thresholds(run, tmp_path):
    """For one image at a time, in the place of an earlier bundle."""
    place = str(tmp_path / "a.flowad")
    options = GraphOptions(dynamic=False, opset=19)
    found = export.export(run, place, options, false_alarm_rate=0.5, threshold=1e9)
    about = card.read(found.place)
    assert about["batch"] == {"dynamic": False, "most": 1}
    assert about["graph"]["inputs"] == {"image": ["uint8", [1, 32, 32, 3]]}
    assert about["opset"] == onnx.load(found.place / card.ONNX).opset_import[0].version == 19
    program = jax_export.deserialize(bytearray((found.place / card.STABLEHLO).read_bytes()))
    assert program.in_avals[0].shape == (1, 32, 32, 3)
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert found.agreements[0].images == 6
    detector = flowad_runtime.Detector(place)
    assert detector.thresholds["false_alarm_rate"] == 0.5
    assert detector.thresholds["decided_by"] == "threshold"
    assert detector.predict(np.zeros((8, 8, 3), np.uint8)).anomalous is False


@pytest.fixture(name="graphs")
def _graphs(exported, monkeypatch):
    """Takes the graphs of the exported run, which is quicker."""

    def copied(folder, *_):
        for name in (card.ONNX, card.STABLEHLO):
            shutil.copyfile(exported.place / name, folder / name)

    monkeypatch.setattr(export, "_write_graphs", copied)


def damage(monkeypatch):
    """Has the converter write other weights of the first convolution."""
    original = convert.convert

    def damaged(*args):
        model = original(*args)
        tensor = next(x for x in model.graph.initializer if len(x.dims) == 4)
        values = numpy_helper.to_array(tensor) * np.float32(1.001)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model

    monkeypatch.setattr(convert, "convert", damaged)


def test_a_graph_that_says_something_else_is_not_written(exported, run, tmp_path, monkeypatch):
    shutil.copytree(exported.place, tmp_path / "a.flowad")
    before = snapshot(tmp_path)
    damage(monkeypatch)
    message = refused(run, str(tmp_path / "a.flowad"))
    start = "onnxruntime does not agree with JAX on '"
    assert message.startswith(start + str(run.parent / "images" / "test" / "good"))
    assert "differs by" in message
    assert message.endswith("the first stage that differs is features 0")
    assert snapshot(tmp_path) == before


def test_a_runtime_that_decides_something_else_is_not_written(run, graphs, tmp_path, monkeypatch):
    copy = runtime.copy

    def changed(folder):
        copy(folder)
        file = folder / "flowad_runtime" / "decisions.py"
        text, line = file.read_text(), "return (1 + count - lower) / (count + 1)"
        assert line in text
        file.write_text(text.replace(line, "return (1 + count - lower) / (count + 2)"))

    monkeypatch.setattr(runtime, "copy", changed)
    message = refused(run, str(tmp_path / "a.flowad"))
    assert "p_value is" in message
    assert message.endswith("no stage of the graph differs: it is decoding or deciding")
    assert list(tmp_path.iterdir()) == []


def test_without_images_random_patterns_are_compared(run, graphs, tmp_path):
    copied = moved(run, tmp_path / "run", tmp_path / "gone")
    found = export.export(copied, str(tmp_path / "a.flowad"))
    assert found.checked.startswith("random patterns, as no images are at hand: ")
    assert "gone" in found.checked
    assert [one.images for one in found.agreements] == [4] * len(found.agreements)


def test_without_test_images_held_out_ones_are_compared(run, graphs, tmp_path):
    shutil.copytree(run.parent / "images" / "train", tmp_path / "images" / "train")
    copied = moved(run, tmp_path / "run", tmp_path / "images")
    found = export.export(copied, str(tmp_path / "a.flowad"))
    assert found.checked == "4 held-out images of the run"


def test_what_cannot_be_exported_is_one_line(run, tmp_path, monkeypatch):
    place = str(tmp_path / "a.flowad")
    assert "is not a workdir" in refused(tmp_path, place)
    assert "that flowad export did not write" in refused(run, str(run))
    assert "not installed: pip install 'flowad_jax[onnx]'" in refused_without_onnx(run, place)

    def trace(*_):
        raise TypeError("no array\nat all")

    with monkeypatch.context() as patched:
        patched.setattr(Scorer, "trace", trace)
        message = refused(run, place)
    assert message.startswith("method cflow cannot be exported: ")
    assert "no array" in message

    def open_batch(_, image, *place):
        return image[: int(image.shape[0]), 0, 0, :1] * 1.0, image[..., 0] * 1.0

    with monkeypatch.context() as patched:
        patched.setattr(Scorer, "__call__", open_batch)
        message = refused(run, place)
    assert message.startswith("method cflow cannot be exported: ")
    assert message.endswith("; try --batch=1")
    assert list(tmp_path.iterdir()) == []


def refused_without_onnx(run, place):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runtime.importlib.util, "find_spec", lambda name: None)
        return refused(run, place)


def test_validate_repeats_it(exported):
    found = validate.validate(exported.place)
    assert [x.agreement.backend for x in found] == list(runtime.installed())
    assert all(x.agreement.images == 4 and x.milliseconds > 0 for x in found)
    first, *rows = validate.shown(found).splitlines()
    assert first.split()[:2] == ["backend", "version"]
    assert len(rows) == len(found)


def test_validate_refuses_what_was_changed(exported, tmp_path):
    """Also where the checksum was changed with it; and nothing of the bundle is run."""
    place = shutil.copytree(exported.place, tmp_path / "a.flowad")
    (place / "run.py").write_text("raise SystemExit('not this one')")
    with pytest.raises(UserError, match=r"run\.py is not the file that was exported"):
        validate.validate(place)
    about = json.loads((place / card.CARD).read_text())
    with np.load(place / card.CHECK) as loaded:
        arrays = dict(loaded)
    wrong = {**arrays, "score": arrays["score"] * 1.01}
    np.savez(place / card.CHECK, **wrong)
    for name in ("run.py", card.CHECK):
        about["files"][name] = card.identify(place / name)
    (place / card.CARD).write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"^onnxruntime does not agree with JAX on 'image 0 of"):
        validate.validate(place)
    for key, value in (("p_value", 0.123), ("anomalous", -1)):
        wrong = {**arrays, key: np.full_like(arrays[key], value)}
        np.savez(place / card.CHECK, **wrong)
        about["files"][card.CHECK] = card.identify(place / card.CHECK)
        (place / card.CARD).write_text(json.dumps(about))
        with pytest.raises(UserError, match=f"check.npz': {key} is .*, must be {value}"):
            validate.validate(place)
    wrong = {**arrays, "map": arrays["map"][:, :-1]}
    np.savez(place / card.CHECK, **wrong)
    about["files"][card.CHECK] = card.identify(place / card.CHECK)
    (place / card.CARD).write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"check\.npz is not of this detector"):
        validate.validate(place)
    (place / card.CHECK).write_bytes(b"none")
    about["files"][card.CHECK] = card.identify(place / card.CHECK)
    (place / card.CARD).write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"check\.npz cannot be read .*: export the detector again"):
        validate.validate(place)


def test_described():
    images = comparison.Images("images", [], "the folder is gone")
    assert comparison.described(images).endswith("at hand: the folder is gone")
