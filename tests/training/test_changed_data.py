"""Images that are added, changed or removed after training: nothing is measured against others."""

import json
import shutil

import numpy as np
import pytest

import flowad_jax
from flowad_jax.data import fingerprint
from flowad_jax.data.record import Record
from flowad_jax.detector import state
from flowad_jax.detector.checkpoint import read_meta, steps
from flowad_jax.errors import UserError
from flowad_jax.interrupt import Interrupted
from flowad_jax.sweep import runner
from flowad_jax.training import rescore, scoring
from flowad_jax.training.experiment import build
from flowad_jax.training.loop import train
from tests.conftest import tiny_recipe, write_image
from tests.training.test_loop import stop_after_steps, without_times

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module", name="runs")
def _runs(tmp_path_factory):
    """A run that was stopped in its second epoch, one that ended, and ten training images."""
    root = tmp_path_factory.mktemp("changed")
    for index in range(10):
        write_image(root / "images" / "part" / "train" / "good" / f"{index}.png", index)
    for index in range(3):
        for kind in ("good", "spot"):
            file = root / "images" / "part" / "test" / kind / f"{index}.png"
            write_image(file, 100 + index, defect=kind == "spot")
    config = recipe(root / "images")
    with pytest.MonkeyPatch.context() as patched:
        stop_after_steps(patched, 4)
        with pytest.raises(Interrupted):
            train(config, root / "stopped")
    train(config, root / "whole")
    shutil.copytree(root / "images", root / "keep")
    return root


def recipe(root):
    """Two epochs of three batches; four of ten images are held out."""
    config = tiny_recipe(root)
    config.data.holdout, config.seed = 0.4, 0
    config.train.epochs, config.train.batch_size, config.eval.batch_size = 2, 2, 8
    config.train.eval_every = config.train.checkpoint_every = 8
    config.eval.pictures_per_kind, config.eval.false_alarm_rate = 0, 0.2
    return config


@pytest.fixture(name="config")
def _config(runs):
    return recipe(runs / "images")


@pytest.fixture(name="good")
def _good(runs):
    """The folder of training images, which may be changed."""
    yield runs / "images" / "part" / "train" / "good"
    renewed(runs / "images", runs / "keep")


@pytest.fixture(name="stopped")
def _stopped(runs, tmp_path):
    return shutil.copytree(runs / "stopped", tmp_path / "stopped")


@pytest.fixture(name="whole")
def _whole(runs, tmp_path):
    return shutil.copytree(runs / "whole", tmp_path / "whole")


def results_of(path):
    return json.loads((path / "results.json").read_text())


def images_of(path):
    return read_meta(path, steps(path)[-1])["images"]


def changes(good):
    """Ways to change the set, with what is said of each."""
    names = sorted(file.name for file in good.iterdir())
    return {
        f"'part/train/good/{names[0]}' was changed": lambda: write_image(good / names[0], 77),
        f"'part/train/good/{names[0]}' was removed": lambda: (good / names[0]).unlink(),
        "'part/train/good/00.png' was added": lambda: write_image(good / "00.png", 77),
    }


def renewed(folder, keep):
    shutil.rmtree(folder)
    shutil.copytree(keep, folder)


def test_eval_and_predict_keep_to_what_was_fitted(whole, good):
    """Even if the training images are all gone; test images may change."""
    results = results_of(whole)
    test = good.parents[1] / "test" / "good"
    before = flowad_jax.load(whole).predict([test / "0.png"])[0]
    write_image(good / "0a.png", 99)
    write_image(good / "3.png", 9)
    rescore.evaluate_workdir(whole)
    again = results_of(whole)
    for key in ("columns", "thresholds", "data"):
        assert again[key] == results[key]
    after = flowad_jax.load(whole).predict([test / "0.png"])[0]
    assert (after.score, after.p_value) == (before.score, before.p_value)
    shutil.rmtree(good)
    write_image(test / "9.png", 9)
    again = rescore.evaluate_workdir(whole)
    assert again["data"]["train"] == results["data"]["train"]
    assert again["data"]["train"]["images"] == 6
    assert again["data"]["holdout"]["images"] == again["thresholds"]["images"] == 4
    assert again["data"]["test"]["good"] == again["thresholds"]["test"]["good"] == 4
    assert again["thresholds"]["image"] == results["thresholds"]["image"]
    assert again["timing"]["train_images_per_second"]


def test_a_checkpoint_lists_its_images(stopped, good):
    images = images_of(stopped)
    names = [*images["train"], *images["holdout"]]
    assert sorted(names) == [f"part/train/good/{i}.png" for i in range(10)]
    assert len(images["holdout"]) == 4
    for name, digest in (images["train"] | images["holdout"]).items():
        assert digest == fingerprint.of_file(good.parents[2] / name)
    assert len(set(images["train"].values())) == 6


def test_resuming_refuses_a_changed_set(config, runs, stopped, whole, good):
    before = {file: file.read_bytes() for file in stopped.rglob("*") if file.is_file()}
    del before[stopped / ".lock"]
    for line, change in changes(good).items():
        change()
        with pytest.raises(UserError) as refused:
            train(config, stopped)
        assert line in str(refused.value)
        assert "\n" not in str(refused.value)
        assert "more differences" not in str(refused.value)
        assert {file: file.read_bytes() for file in before} == before
        with pytest.raises(UserError, match="was trained on other images") as refused:
            rescore.evaluate_workdir(stopped)
        assert line in str(refused.value)
        renewed(runs / "images", runs / "keep")
    train(config, stopped)
    assert without_times(stopped) == without_times(whole)
    assert images_of(stopped) == images_of(whole)


def test_a_finished_run_has_nothing_to_go_on_with(config, whole, good):
    write_image(good / "00.png", 77)
    with pytest.raises(UserError, match=r"'part/train/good/00\.png' was added; put back"):
        train(config, whole, allow_changed_data=True)


def test_a_stopped_run_is_scored_with_its_own_images(config, runs, stopped, good, tmp_path):
    """Thresholds come from those that were held out, not from a new draw."""
    shutil.copytree(stopped, tmp_path / "copy")
    first = rescore.evaluate_workdir(stopped)
    assert first["thresholds"]["images"] == 4
    assert first["data"]["train"]["images"] == 6
    moved = shutil.move(good.parents[2], tmp_path / "moved")
    shutil.copytree(runs / "keep", good.parents[2])
    write_image(good / "00.png", 1)
    text = (tmp_path / "copy" / "config.json").read_text()
    text = text.replace(json.dumps(config.data.root), json.dumps(str(moved)))
    (tmp_path / "copy" / "config.json").write_text(text)
    again = rescore.evaluate_workdir(tmp_path / "copy")  # the names are relative to the root
    assert again["thresholds"] == first["thresholds"]


def test_going_on_with_other_images_is_written_down(config, stopped, good):
    before = images_of(stopped)
    held, trained = (list(before[key]) for key in ("holdout", "train"))
    root = good.parents[2]
    write_image(good / "00.png", 70)
    write_image(root / trained[0], 71)
    (root / trained[1]).unlink()
    (root / held[0]).unlink()
    write_image(root / held[1], 72)
    results = train(config, stopped, allow_changed_data=True)
    note = f"epoch 1, batch 1: '{trained[0]}' was changed and 4 more differences"
    assert results["data"]["changed_in_training"] == [note]
    assert json.loads((stopped / "results.json").read_text())["data"] == results["data"]
    assert note.split(":")[0] in (stopped / "results.md").read_text()
    now = images_of(stopped)
    assert list(now["holdout"]) == held[1:]  # none of which was ever trained on
    assert list(now["train"]) == [trained[0], *trained[2:], "part/train/good/00.png"]
    assert results["thresholds"]["images"] == 3
    again = rescore.evaluate_workdir(stopped)
    assert again["data"] == results["data"]
    assert again["thresholds"] == results["thresholds"]


def test_few_shots_are_kept_whatever_is_added(config, runs, good, tmp_path, monkeypatch):
    """The draw depends on how many there are; a resumed run has no draw."""
    config.data.few_shot = 3
    train(config, tmp_path / "whole")
    stop_after_steps(monkeypatch)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run")
    monkeypatch.undo()
    for index in range(20):
        write_image(good / f"0{index}.png", 50 + index)
    train(config, tmp_path / "run")
    assert without_times(tmp_path / "run") == without_times(tmp_path / "whole")
    assert images_of(tmp_path / "run") == images_of(tmp_path / "whole")
    (good.parents[2] / next(iter(images_of(tmp_path / "run")["train"]))).unlink()
    with pytest.raises(UserError, match=r"'part/train/good/\d\.png' was removed"):
        train(config, tmp_path / "run")


def test_runs_of_a_stack_have_lists_of_their_own(config, good, tmp_path, monkeypatch):
    root, path = good.parents[2], tmp_path / "several"
    shutil.copytree(root / "part", root / "other")
    config.data.category, config.train.stack = "other,part", ("other", "part")
    config.train.epochs, config.train.eval_every = 1, 1
    stop_after_steps(monkeypatch, 1)
    with pytest.raises(Interrupted):
        runner.run(config, path)
    monkeypatch.undo()
    write_image(root / "other" / "train" / "good" / "00.png", 1)
    found = {run["folder"]: run["fault"] for run in runner.run(config, path)["runs"]}
    assert "'other/train/good/00.png' was added" in found["other"]
    assert found["part"] == ""
    found = {run["folder"]: run["fault"] for run in runner.run(config, path, True)["runs"]}
    assert found == {"other": "", "part": ""}


class Drawn:
    """Records without files, whose paths are names of files that have nothing to do with them."""

    has_masks = False

    def __init__(self, seeds, path):
        self._seeds, self.paths = seeds, [str(path)] * len(seeds)
        self.labels, self.kinds = np.zeros(len(seeds), np.int32), ["good"] * len(seeds)

    def __len__(self):
        return len(self._seeds)

    def __getitem__(self, index):
        image = np.random.default_rng(self._seeds[index]).integers(0, 255, (9, 8, 3), np.uint8)
        return Record(image, np.zeros((9, 8), bool), 0, "good", self.paths[index])


def test_records_without_files_are_known_by_their_pixels(tmp_path):
    file = tmp_path / "1.png"
    write_image(file, 1)
    one = fingerprint.listing(Drawn([1, 2, 3], file), tmp_path, "all")
    assert list(one) == ["1.png", "1.png (2)", "1.png (3)"]
    assert len(set(one.values())) == 3
    assert fingerprint.listing(Drawn([1, 2, 3], file), tmp_path, "all") == one
    other = fingerprint.listing(Drawn([1, 4, 3], file), tmp_path, "all")
    assert fingerprint.differences(one, other) == ["'1.png (2)' was changed"]
    assert fingerprint.differences(one, one) == []


def test_other_scores_than_the_thresholds_were_fitted_for(config, whole):
    """A resumed run may change how it evaluates; stored scores of held-out images are not those."""
    config.eval.image_score = "0.03"
    results = train(config, whole)
    system = build(config)
    trained, _, meta = state.of_workdir(system, whole)
    right = scoring.fit(system, trained, system.features).image.max()
    assert results["thresholds"]["image"] == pytest.approx(right, rel=2e-5)
    assert right != pytest.approx(max(meta["fitted"]["image"]), rel=1e-3)
    with pytest.raises(UserError, match=r"config\.json: eval\.image_score"):
        flowad_jax.load(whole)
