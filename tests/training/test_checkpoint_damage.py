"""Checkpoints that are damaged, foreign or edited: one line that says so, and never another answer.

Damage is drawn at random from fixed seeds and done to copies of one tiny run.
"""

import json
import logging
import math
import random
import shutil
from contextlib import ExitStack

import jax
import numpy as np
import pytest

import flowad_jax
from configs.base import base
from flowad_jax.doctor.workdir import examine
from flowad_jax.errors import UserError
from flowad_jax.evaluation.fitted import Fitted, to_json
from flowad_jax.training import checkpoint, checksums, state, summary, workdir
from flowad_jax.training.checkpoint import Checkpoints
from flowad_jax.training.interrupt import Signals
from flowad_jax.training.loop import train
from flowad_jax.training.members import Member
from flowad_jax.training.model import build_model
from flowad_jax.training.trainee import begin
from flowad_jax.types import Calibration
from tests.conftest import write_image

NEWEST, OLDER = 4, 2  # steps: two epochs of two batches


def recipe(root):
    config = base("cflow", "folder")
    config.data.root, config.data.image_size = str(root / "images"), 32
    config.data.holdout, config.data.workers = 0.34, 0
    config.encoder.name = "efficientnet_lite.efficientnet_lite_tiny"
    config.encoder.weights, config.encoder.strides = "random", (4, 8)
    config.method.blocks, config.method.condition, config.method.fibre_size = 1, 4, 16
    config.train.epochs, config.train.batch_size, config.train.eval_every = 2, 4, 2
    config.train.checkpoint_every, config.train.plan_memory = 1, False
    config.eval.pictures_per_kind, config.eval.report_images, config.eval.batch_size = 0, 0, 4
    config.eval.false_alarm_rate = 0.3
    return config


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory):
    """A finished run that nobody damages, its model and a state of the right shapes."""
    root = tmp_path_factory.mktemp("damage")
    for index in range(10):
        write_image(root / "images" / "train" / "good" / f"{index}.png", index)
    for index in range(2):
        write_image(root / "images" / "test" / "good" / f"{index}.png", 100 + index)
        write_image(root / "images" / "test" / "spot" / f"{index}.png", 200 + index, defect=True)
    train(recipe(root), root / "run")
    return root


@pytest.fixture(scope="module", name="model")
def _model(run):
    return build_model(workdir.load_config(run / "run"))


@pytest.fixture(name="path")
def _path(run, tmp_path):
    """A copy of the run."""
    return shutil.copytree(run / "run", tmp_path / "run")


def newest(path):
    return path / "checkpoints" / str(NEWEST)


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


def values(restored):
    """A restored state, its position and its meta, to be compared."""
    trained, position, meta = restored
    leaves = jax.tree.leaves(trained._replace(rng=jax.random.key_data(trained.rng)))
    return [np.asarray(leaf) for leaf in leaves], position, meta


def same(one, other):
    arrays = all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one[0], other[0], strict=True)
    )
    return arrays and one[1:] == other[1:]


def flip(file, rng):
    """Flips one bit of a file."""
    content = bytearray(file.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def meta_file(path):
    return newest(path) / checkpoint.META


def content_of(file):
    return json.loads(file.read_text())["content"]


def test_bit_flips_are_detected_or_harmless(path, model):
    def restore():
        return state.restored(model, Checkpoints(path))

    right, rng = values(restore()), random.Random(14)
    files = [file for file in files_of(newest(path)) if file.stat().st_size]
    assert {"manifest.ocdbt", "_METADATA", "metadata"} <= {file.name for file in files}
    lines = []
    for _ in range(100):
        file = rng.choice(files)
        before = file.read_bytes()
        flip(file, rng)
        try:
            assert same(values(restore()), right), file
        except UserError as error:
            lines.append(str(error))
        file.write_bytes(before)
    assert len(lines) >= 95  # the others hit white space of the JSON
    assert all("\n" not in line and f"checkpoints/{NEWEST}" in line for line in lines)
    assert same(values(restore()), right)


LOST = {
    "deleted": lambda file: file.unlink(),
    "emptied": lambda file: file.write_bytes(b""),
    "halved": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-2]),
}


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST)
def test_files_that_are_lost_or_cut_off(path, model, lose):
    for file in files_of(newest(path)):
        before = file.read_bytes()
        lose(file)
        line = refused(state.restored, model, Checkpoints(path))
        assert f"delete checkpoints/{NEWEST} to go back to step {OLDER}" in line
        assert file.name in line
        file.write_bytes(before)


def test_whoever_follows_the_advice_resumes_from_the_step_before(path, run, caplog):
    flip(newest(path) / "state" / "manifest.ocdbt", random.Random(0))
    assert "delete checkpoints/4" in refused(train, recipe(run), path)
    shutil.rmtree(newest(path))
    with caplog.at_level(logging.INFO, "flowad_jax"):
        train(recipe(run), path)
    assert "resuming at epoch 1, batch 0" in caplog.text
    assert checkpoint.steps(path) == [OLDER, NEWEST]


def test_a_damaged_state_reaches_nobody(path, run):
    """Flipped in the largest file, where the parameters are."""
    flip(max(files_of(newest(path) / "state"), key=lambda f: f.stat().st_size), random.Random(3))
    before = snapshot(path)
    for call in (flowad_jax.load, summary.evaluate_workdir, lambda p: train(recipe(run), p)):
        line = refused(call, path)
        assert "checkpoint 4 in" in line
        assert "has changed (its checksum differs)" in line
        assert snapshot(path / "checkpoints") == snapshot_of(before, path / "checkpoints")
    problems = examine(str(path)).problems
    assert len(problems) == 1
    assert "has changed" in problems[0][0]
    assert "delete checkpoints/4" in problems[0][1]


def test_a_damaged_member_of_a_stack_is_left_out(run, tmp_path):
    members = [Member(name, recipe(run)) for name in ("whole", "damaged")]
    for member in members:
        shutil.copytree(run / "run", tmp_path / member.folder)
    flip(newest(tmp_path / "damaged") / "state" / "manifest.ocdbt", random.Random(0))
    noted = {}
    with ExitStack() as opened, Signals() as signals:
        note = lambda member, outcome: noted.update({member.folder: outcome})  # noqa: E731
        trainees = begin(members, tmp_path, note, opened, signals)
    assert [trainee.run.title for trainee in trainees] == ["whole"]
    assert (noted.keys(), noted["damaged"].status) == ({"damaged"}, "failed")
    assert "manifest.ocdbt has changed" in noted["damaged"].fault


def snapshot_of(whole, folder):
    return [entry for entry in whole if entry[0] == folder or folder in entry[0].parents]


def test_a_state_and_a_meta_of_two_checkpoints(path, model):
    shutil.rmtree(newest(path) / "state")
    shutil.copytree(path / "checkpoints" / str(OLDER) / "state", newest(path) / "state")
    assert "cannot be restored" in refused(state.restored, model, Checkpoints(path))


def test_a_checkpoint_under_the_name_of_another_step(path, model):
    newest(path).rename(path / "checkpoints" / "7")
    line = refused(state.restored, model, Checkpoints(path))
    assert line.endswith("checkpoints/7: rename it to 4, its step")


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
    "position of one": '{"encoder_sha256": "0", "position": [1]}',
    "position of text": '{"encoder_sha256": "0", "position": "ab"}',
    "negative position": '{"encoder_sha256": "0", "position": [-1, 0]}',
    "weights of a number": '{"encoder_sha256": 5, "position": [1, 0]}',
    "fitted of text": '{"encoder_sha256": "0", "position": [1, 0], "fitted": "x"}',
    "fitted of null": '{"encoder_sha256": "0", "position": [1, 0], "fitted": null}',
    "seconds of text": '{"encoder_sha256": "0", "position": [1, 0], "epoch_seconds": ["x"]}',
    "steps of numbers": '{"encoder_sha256": "0", "position": [1, 0], "steps": [1, 2]}',
    "config of a list": '{"encoder_sha256": "0", "position": [1, 0], "config": []}',
}


@pytest.mark.parametrize("text", WRONG_META.values(), ids=WRONG_META)
def test_meta_of_a_wrong_shape(path, run, text):
    meta_file(path).write_bytes(text.encode("utf-8", "surrogateescape"))
    for call in (flowad_jax.load, summary.evaluate_workdir, lambda p: train(recipe(run), p)):
        assert str(meta_file(path)) in refused(call, path)
    (problem,) = examine(str(path)).problems
    assert str(meta_file(path)) in problem[0]


def test_meta_that_says_less_than_it_should(path):
    """With a right checksum: edited, not damaged."""
    content = content_of(meta_file(path))
    del content["state"]
    meta_file(path).write_text(checksums.seal(content))
    assert "metadata has no checksums" in refused(flowad_jax.load, path)


SCALES = "(2,)"
WRONG_FITTED = {
    "NaN": ("scale_max", [math.nan, 0.0], "NaN"),
    "infinite": ("scale_max", [math.inf, 0.0], "Infinity"),
    "minus infinity": ("map_max", -math.inf, "Infinity"),
    "image NaN": ("image", [math.nan] * 3, "NaN"),
    "peak infinite": ("peak", [math.inf] * 3, "Infinity"),
    "no scales": ("scale_max", [], "fitted.scale_max=[]: must be a list of 1 or more"),
    "one scale": ("scale_max", [1.0], f"fitted.scale_max has shape (1,), must be {SCALES}"),
    "three scales": ("scale_max", [1.0] * 3, f"fitted.scale_max has shape (3,), must be {SCALES}"),
    "nested": ("scale_max", [[1.0], [1.0]], "fitted.scale_max.0=[1.0]: must be a finite number"),
    "text": ("map_max", "high", "fitted.map_max='high': must be a finite number or a list"),
    "several maps": ("map_max", [1.0, 2.0], "fitted.map_max has shape (2,), must be ()"),
    "no map": ("map_max", [], "fitted.map_max=[]: must be a finite number or a list"),
    "no peaks": ("peak", [], "fitted.peak has shape (0,), must be (3,)"),
    "null": ("image", None, "fitted.image=None: must be a list"),
    "truth": ("map_max", True, "fitted.map_max=True: must be a finite number"),
}


@pytest.mark.parametrize("sealed", [True, False], ids=["checksum", "version 0.1"])
@pytest.mark.parametrize(("key", "value", "said"), WRONG_FITTED.values(), ids=WRONG_FITTED)
def test_calibration_that_measures_nothing(path, model, key, value, said, sealed):
    content = content_of(meta_file(path))
    assert len(content["fitted"]["image"]) == 3
    content["fitted"][key] = value
    if not sealed:
        del content["state"]
    text = checksums.seal(content) if sealed else json.dumps(content)
    meta_file(path).write_text(text)
    line = refused(state.restored, model, Checkpoints(path))
    assert str(meta_file(path)) in line
    assert said in line


def test_a_missing_part_of_the_calibration(path, model):
    content = content_of(meta_file(path))
    del content["fitted"]["peak"]
    meta_file(path).write_text(checksums.seal(content))
    assert "has no fitted.peak" in refused(state.restored, model, Checkpoints(path))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_calibration_that_measures_nothing_is_not_written(bad):
    finite = np.ones(3)
    fitted = Fitted(Calibration(np.ones(2), np.float64(bad)), finite, finite)
    assert "NaN or infinite values for normal images (map_max)" in refused(to_json, fitted)
    empty = Fitted(Calibration(np.ones(2), np.float64(1)), np.zeros(0), np.zeros(0))
    assert to_json(empty)["image"] == []


OTHER = {
    "learning rate": ("train.learning_rate", 0.5),
    "seed": ("seed", 3),
    "epochs": ("train.epochs", 5),
    "image size": ("data.image_size", 64),
}


@pytest.mark.parametrize(("key", "value"), OTHER.values(), ids=OTHER)
def test_a_deleted_config_does_not_free_the_checkpoint(path, run, key, value):
    (path / "config.json").unlink()
    before = snapshot(path)
    config = recipe(run)
    config.update_from_flattened_dict({key: value})
    assert f"holds a run of another config ({key}: " in refused(train, config, path)
    assert snapshot(path) == before


def test_a_deleted_config_comes_back_with_the_right_one(path, run):
    text = (path / "config.json").read_text()
    (path / "config.json").unlink()
    train(recipe(run), path)
    assert (path / "config.json").read_text() == text


def edit(path, key, value):
    """Changes a value in the stored config."""
    file = path / "config.json"
    config = json.loads(file.read_text())
    *sections, name = key.split(".")
    section = config
    for word in sections:
        section = section[word]
    section[name] = value
    file.write_text(json.dumps(config))


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
def test_an_edited_config_is_refused(path, run, key, value):
    config = recipe(run)
    config.update_from_flattened_dict({key: value})
    edit(path, key, value)
    for call in (flowad_jax.load, summary.evaluate_workdir):
        line = refused(call, path)
        assert line.startswith(f"{path / 'config.json'} was changed after training ({key}: ")
    (problem,) = examine(str(path)).problems
    assert f"({key}: " in problem[0]
    assert f"({key}: " in refused(train, config, path)


def test_what_is_free_may_be_edited(path, run):
    edit(path, "eval.false_alarm_rate", 0.5)
    moved = shutil.copytree(run / "images", path.parent / "moved")
    edit(path, "data.root", str(moved))
    assert flowad_jax.load(path).thresholds["false_alarm_rate"] == 0.5


def test_a_checkpoint_of_another_run_of_the_same_shapes(path, run):
    content = content_of(meta_file(path))
    content["config"]["train"]["learning_rate"] = 0.25
    meta_file(path).write_text(checksums.seal(content))
    for call in (flowad_jax.load, summary.evaluate_workdir, lambda p: train(recipe(run), p)):
        assert "train.learning_rate: 0.25 there" in refused(call, path)


def make_old(path):
    """Gives the newest checkpoint the form that version 0.1 wrote."""
    content = content_of(meta_file(path))
    del content["state"], content["config"]
    meta_file(path).write_text(json.dumps(content))


def test_version_0_1_loads_with_one_warning(path, model, caplog):
    right = values(state.restored(model, Checkpoints(path)))
    make_old(path)
    arrays, position, meta = values(state.restored(model, Checkpoints(path)))
    assert same((arrays, position, {**meta, "config": right[2]["config"]}), right)
    assert [r.message for r in caplog.records] == [
        f"{newest(path)}/state cannot be checked for damage: version 0.1 wrote no checksums"
    ]


def test_version_0_1_without_its_config_is_not_resumed(path, run):
    make_old(path)
    (path / "config.json").unlink()
    assert "config.json that they belong to is gone" in refused(train, recipe(run), path)


def test_damage_that_only_orbax_can_see(path, model):
    """Without checksums, arrays that cannot be read are still one line."""
    make_old(path)
    files = files_of(newest(path) / "state")
    for file in (max(files, key=lambda f: f.stat().st_size), newest(path) / "state/_METADATA"):
        before = file.read_bytes()
        file.write_bytes(before[:50])
        line = refused(state.restored, model, Checkpoints(path))
        assert "/state is damaged or of another version" in line
        assert f"delete checkpoints/{NEWEST}" in line
        file.write_bytes(before)


def test_reading_changes_nothing(path, model):
    before = snapshot(path)
    flowad_jax.load(path)
    state.restored(model, Checkpoints(path))
    assert not examine(str(path)).problems
    assert snapshot(path) == before
    shutil.rmtree(path / "checkpoints")
    before = snapshot(path)
    assert "holds no complete checkpoint" in refused(flowad_jax.load, path)
    assert "holds no complete checkpoint" in refused(summary.evaluate_workdir, path)
    assert examine(str(path)).problems
    assert snapshot(path) == before
