"""What describes a checkpoint, edited or of another run: one line that says so."""

import json
import math
import shutil

import numpy as np
import pytest

import flowad_jax
from flowad_jax.detector import checksums, state
from flowad_jax.detector.calibration import Fitted, to_json
from flowad_jax.training import rescore
from flowad_jax.training.loop import train
from flowad_jax.types import Calibration
from tests.conftest import shared_recipe
from tests.detector.conftest import content_of, meta_file, problem_of, refused, snapshot

HELD_OUT = 4


WRONG_META = {
    "empty": "",
    "list": "[]",
    "null": "null",
    "text": '"meta"',
    "number": "3",
    "table": "{}",
    "deep": '{"encoder_sha256":' * 5000 + "1" + "}" * 5000,
    "bytes": "\udcff",
    "only a checksum": '{"sha256": "0"}',
    "no checksum": '{"content": {}}',
    "checksum of another": '{"sha256": "0", "content": {}}',
    "no position": '{"encoder_sha256": "0"}',
    "weights of a number": '{"encoder_sha256": 5, "position": [1, 0]}',
} | {
    key: f'{{"encoder_sha256": "0", "position": {value}}}'
    for key, value in {
        "position of one": "[1]",
        "position of text": '"ab"',
        "negative position": "[-1, 0]",
        "fitted of text": '[1, 0], "fitted": "x"',
        "fitted of null": '[1, 0], "fitted": null',
        "seconds of text": '[1, 0], "epoch_seconds": ["x"]',
        "steps of numbers": '[1, 0], "steps": [1, 2]',
        "config of a list": '[1, 0], "config": []',
    }.items()
}


@pytest.mark.parametrize("text", WRONG_META.values(), ids=WRONG_META)
def test_meta_of_a_wrong_shape(path, doors, text):
    meta_file(path).write_bytes(text.encode("utf-8", "surrogateescape"))
    for call in doors:
        assert str(meta_file(path)) in refused(call, path)
    assert str(meta_file(path)) in problem_of(path)[0]


@pytest.mark.parametrize(
    ("key", "inner", "said"),
    [("state", None, "metadata has no checksums"), ("fitted", "peak", "has no fitted.peak")],
)
def test_meta_that_says_less_than_it_should(path, model, key, inner, said):
    """With a right checksum: edited, not damaged."""
    content = content_of(path)
    if inner:
        del content[key][inner]
    else:
        del content[key]
    meta_file(path).write_text(checksums.seal(content))
    assert said in refused(state.of_workdir, model, path)


WRONG_FITTED = {
    "NaN": ("scale_max", [math.nan, 0.0], "NaN"),
    "infinite": ("scale_max", [math.inf, 0.0], "Infinity"),
    "minus infinity": ("map_max", -math.inf, "Infinity"),
    "image NaN": ("image", [math.nan] * HELD_OUT, "NaN"),
    "peak infinite": ("peak", [math.inf] * HELD_OUT, "Infinity"),
    "no scales": ("scale_max", [], "fitted.scale_max=[]: must be a list of 1 or more"),
    "one scale": ("scale_max", [1.0], "fitted.scale_max has shape (1,), must be (2,)"),
    "three scales": ("scale_max", [1.0] * 3, "fitted.scale_max has shape (3,), must be (2,)"),
    "nested": ("scale_max", [[1.0], [1.0]], "fitted.scale_max.0=[1.0]: must be a finite number"),
    "text": ("map_max", "high", "fitted.map_max='high': must be a finite number or a list"),
    "several maps": ("map_max", [1.0, 2.0], "fitted.map_max has shape (2,), must be ()"),
    "no map": ("map_max", [], "fitted.map_max=[]: must be a finite number or a list"),
    "no peaks": ("peak", [], f"fitted.peak has shape (0,), must be ({HELD_OUT},)"),
    "null": ("image", None, "fitted.image=None: must be a list"),
    "truth": ("map_max", True, "fitted.map_max=True: must be a finite number"),
}


@pytest.mark.parametrize("sealed", [True, False], ids=["checksum", "version 0.1"])
@pytest.mark.parametrize(("key", "value", "said"), WRONG_FITTED.values(), ids=WRONG_FITTED)
def test_calibration_that_measures_nothing(path, model, key, value, said, sealed):
    content = content_of(path)
    assert len(content["fitted"]["image"]) == HELD_OUT
    content["fitted"][key] = value
    if not sealed:
        del content["state"]
    meta_file(path).write_text(checksums.seal(content) if sealed else json.dumps(content))
    line = refused(state.of_workdir, model, path)
    assert str(meta_file(path)) in line
    assert said in line


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_calibration_that_measures_nothing_is_not_written(bad):
    finite = np.ones(3)
    fitted = Fitted(Calibration(np.ones(2), np.float64(bad)), finite, finite)
    assert "NaN or infinite values for normal images (map_max)" in refused(to_json, fitted)
    empty = Fitted(Calibration(np.ones(2), np.float64(1)), np.zeros(0), np.zeros(0))
    assert to_json(empty)["image"] == []


def changed(root, key, value):
    config = shared_recipe(root)
    config.update_from_flattened_dict({key: value})
    return config


@pytest.mark.parametrize(
    ("key", "value"),
    [("train.learning_rate", 0.5), ("seed", 3), ("train.epochs", 5), ("data.image_size", 64)],
)
def test_a_deleted_config_does_not_free_the_checkpoint(path, root, key, value):
    (path / "config.json").unlink()
    before = snapshot(path)
    line = refused(train, changed(root, key, value), path)
    assert f"holds a run of another config ({key}: " in line
    assert ("so train anew in another --workdir" in line) == (key == "train.epochs")
    assert snapshot(path) == before


def test_a_deleted_config_comes_back_with_the_right_one(path, root):
    text = (path / "config.json").read_text()
    (path / "config.json").unlink()
    train(shared_recipe(root), path)
    assert (path / "config.json").read_text() == text


def edit(path, key, value):
    """Changes a value in the stored config."""
    config = json.loads((path / "config.json").read_text())
    section, name = key.split(".")
    config[section][name] = value
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.image_size", 64),
        ("encoder.layer_norm", True),
        ("encoder.compute", "bfloat16"),
        ("method.clamp", 1.0),
        ("data.filter", "bilinear"),
        ("train.epochs", 1),
    ],
)
def test_an_edited_config_is_refused(path, root, key, value):
    edit(path, key, value)
    for call in (flowad_jax.load, rescore.evaluate_workdir):
        line = refused(call, path)
        assert line.startswith(f"{path / 'config.json'} was changed after training ({key}: ")
    assert f"({key}: " in problem_of(path)[0]
    assert f"({key}: " in refused(train, changed(root, key, value), path)


def test_what_is_free_may_be_edited(path, root):
    edit(path, "eval.false_alarm_rate", 0.5)
    moved = shutil.copytree(root / "images", path.parent / "moved")
    edit(path, "data.root", str(moved))
    assert flowad_jax.load(path).thresholds["false_alarm_rate"] == 0.5


def test_a_checkpoint_of_another_run_of_the_same_shapes(path, doors):
    content = content_of(path)
    content["config"]["train"]["learning_rate"] = 0.25
    meta_file(path).write_text(checksums.seal(content))
    for call in doors:
        assert "train.learning_rate: 0.25 there" in refused(call, path)
