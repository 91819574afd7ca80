"""A trained detector: the same scores as the evaluation, one image at a time."""

import dataclasses
import json
import logging
import os
import shutil
from contextlib import closing

import numpy as np
import pytest

import flowad_jax
from flowad_jax.data.images import read_image
from flowad_jax.errors import UserError
from flowad_jax.serving import regions
from flowad_jax.training import scoring, state, summary
from flowad_jax.training.checkpoint import Checkpoints
from flowad_jax.training.state import restored
from flowad_jax.training.system import build
from flowad_jax.training.workdir import load_config


@pytest.fixture(scope="module", name="detector")
def _detector(run):
    return flowad_jax.load(run[0] / "run")


def test_scores_are_those_of_the_evaluation(run, detector, files):
    system = build(load_config(run[0] / "run"))
    checkpoints = Checkpoints(run[0] / "run")
    state, _, _ = restored(system, checkpoints)
    checkpoints.close()
    fitted = scoring.fit(system, state, system.features)
    scored = scoring.score(system, state, system.features, fitted)
    found = detector.predict(files)
    np.testing.assert_allclose([p.score for p in found], scored.scores.image, rtol=1e-5)
    assert [p.map.shape for p in found] == [(40, 36)] * 6
    card = run[1]["thresholds"]
    flagged = [p.anomalous for p in found]
    assert card["test"]["false_alarms"] == sum(flagged[:3])
    assert card["test"]["detected"] == sum(flagged[3:])
    assert {k: v for k, v in card.items() if k != "test"} == detector.thresholds


def test_a_score_depends_on_its_image_alone(detector, files):
    together = detector.predict(files)
    alone = [detector.predict([file])[0] for file in files]
    backwards = detector.predict(files[::-1])[::-1]
    for others in (alone, backwards):
        for one, other in zip(together, others, strict=True):
            assert one.score == other.score
            np.testing.assert_array_equal(one.map, other.map)


def test_a_held_out_image_has_the_score_that_was_stored(run, detector, files):
    """To the last bit, wherever in a batch it comes; else the image itself could be anomalous."""
    system = build(load_config(run[0] / "run"))
    with closing(Checkpoints(run[0] / "run")) as checkpoints:
        state, _, meta = restored(system, checkpoints)
    stored, paths = meta["fitted"]["image"], system.holdout.paths
    assert len(stored) == 4
    for loader in (system.holdout_loader, system.calibration_loader, system.test_loader):
        assert loader.batch_size == next(loader.epoch(0)).image.shape[0] == detector.batch_size
    for first in range(detector.batch_size):
        found = detector.predict([*files[:first], *paths, *files])[first : first + 4]
        assert [p.score for p in found] == stored
    assert [p.score for path in paths for p in detector.predict([path])] == stored
    assert min(p.p_value for p in found) == 2 / 5  # of the highest: itself and the new one
    fitted = scoring.fit(system, state, system.features)
    assert fitted.image.tolist() == stored
    as_test = dataclasses.replace(system, test=system.holdout, test_loader=system.holdout_loader)
    scored = scoring.score(as_test, state, as_test.features, fitted)
    assert scored.scores.image.tolist() == stored


def test_files_and_arrays_are_the_same(detector, files):
    by_path, by_name, by_pixels = (
        detector.predict([form])[0] for form in (files[4], str(files[4]), read_image(files[4]))
    )
    assert by_path.score == by_name.score == by_pixels.score
    assert by_path.regions == by_pixels.regions


def test_decisions_follow_the_threshold(detector, files):
    for prediction in detector.predict(files):
        assert prediction.anomalous == (prediction.score > detector.thresholds["image"])
        assert prediction.anomalous == (prediction.p_value <= 0.3)
        assert bool(prediction.regions) == bool(
            np.any(prediction.map > detector.thresholds["pixel"])
        )


def test_few_images_promise_little(run, caplog):
    with caplog.at_level(logging.WARNING, "flowad_jax"):
        detector = flowad_jax.load(run[0] / "run", false_alarm_rate=0.01)
    assert detector.thresholds["promised"] == 0.2  # four held-out images
    assert "4 held-out images cannot promise a false-alarm rate below 0.2" in caplog.text
    with pytest.raises(UserError, match="false_alarm_rate=2"):
        flowad_jax.load(run[0] / "run", false_alarm_rate=2)


def test_images_of_other_kinds_are_refused(detector, pixels):
    for wrong in (pixels[..., 0], pixels.astype(np.float32), "none.png", pixels[..., :2]):
        with pytest.raises(UserError):
            detector.predict([wrong])
    assert detector.predict([]) == []
    (prediction,) = detector.predict([pixels])
    assert prediction.map.shape == (50, 70)


@pytest.mark.parametrize(
    "wrong",
    [
        "one.png", b"one.png", None, 3, {"image": 1}, np.zeros((8, 8, 3), np.uint8),
        [np.zeros((0, 8, 3), np.uint8)], [np.zeros((8, 0, 3), np.uint8)],
        [np.zeros((0, 0, 3), np.uint8)], [np.zeros((8, 8, 3, 1), np.uint8)],
        [np.full((8, 8, 3), np.nan)], [np.zeros((8, 8, 3), object)], [None], [b"one.png"],
        [{"image": 1}], [[1, 2]], [np.zeros((), np.uint8)], np.zeros((1, 0, 8, 3), np.uint8),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("tile", [False, True])
def test_what_is_no_image_is_said_in_one_line(detector, wrong, tile):
    with pytest.raises(UserError) as fault:
        detector.predict(wrong, tile=tile)
    assert "give" in str(fault.value) or "no pixels" in str(fault.value)


@pytest.mark.parametrize("kind", ["folder", "fifo", "empty", "broken link"])
def test_what_is_no_image_file_is_said_in_one_line(detector, tmp_path, kind):
    path = tmp_path / "a.png"
    make = {"folder": path.mkdir, "empty": path.touch, "fifo": lambda: os.mkfifo(path)}
    make.get(kind, lambda: path.symlink_to("nowhere"))()
    with pytest.raises(UserError, match=r"a\.png"):
        detector.predict([path])


@pytest.mark.parametrize(("workdir", "rate"), [(None, 0.1), ("run", "often")])
def test_what_is_no_detector_is_said_in_one_line(run, workdir, rate):
    with pytest.raises(UserError, match=r"a workdir is of type|rate=often"):
        flowad_jax.load(workdir and run[0] / workdir, rate)


def test_a_run_that_is_not_finished(run, tmp_path, monkeypatch):
    stored = state.of_workdir

    def earlier(*arguments):
        trained, position, meta = stored(*arguments)
        return trained, position._replace(epoch=3), meta

    # It has constants, but the state of a run under way must not decide.
    monkeypatch.setattr(state, "of_workdir", earlier)
    with pytest.raises(UserError, match="stands at epoch 3 of 4: finish it"):
        flowad_jax.load(run[0] / "run")
    with pytest.raises(UserError, match="is not a workdir"):
        flowad_jax.load(tmp_path)


def test_tiles_of_a_large_image(run, detector, pixels, caplog):
    tile = np.ascontiguousarray(pixels[:32, :32])
    resized, cut = (detector.predict([tile], tile=choice)[0] for choice in (False, True))
    assert cut.score == pytest.approx(resized.score, rel=1e-6)  # one tile, as large as the image
    np.testing.assert_allclose(cut.map, resized.map, rtol=1e-5, atol=1e-6)
    assert cut.p_value == resized.p_value
    assert "tiles" not in caplog.text
    with caplog.at_level(logging.WARNING, "flowad_jax"):
        (large,) = detector.predict([pixels], tile=True)
    assert "tiles has a p-value of at least 1 with 4 held-out images" in caplog.text
    assert large.map.shape == (50, 70)
    assert large.score >= detector.predict([tile], tile=True)[0].score * (1 - 1e-6)
    # Overlapping tiles of 32 in 50 x 70, each compared with the four held-out images.
    assert large.p_value in {min(1.0, 12 * count / 5) for count in range(1, 6)} | {
        min(1.0, 6 * count / 5) for count in range(1, 6)
    }
    without = flowad_jax.load(run[0] / "run")
    without.thresholds = {}
    assert without.predict([pixels], tile=True)[0].p_value is None


def test_without_enough_held_out_images_tiles_are_no_reason_to_say_normal(run, pixels, caplog):
    tile = np.ascontiguousarray(pixels[:32, :32])
    detector = flowad_jax.load(run[0] / "run", false_alarm_rate=0.2)
    with caplog.at_level(logging.WARNING, "flowad_jax"):
        one, *large = detector.predict([tile, pixels, pixels], tile=True)
    assert (one.anomalous, one.reason) == (one.p_value <= 0.2, None)
    for prediction in large:
        assert prediction.anomalous is None
        assert "tiles has a p-value of at least 1 with 4 held-out images" in prediction.reason
        assert prediction.p_value == 1
    assert caplog.text.count("no decision") == 1, "once, not for every image"


def test_a_score_that_is_not_a_number_is_no_decision(run, files, pixels, monkeypatch):
    detector = flowad_jax.load(run[0] / "run")
    real = detector.log_probs

    def overflow(images):
        maps = [scale.copy() for scale in real(images)]
        maps[0][0] = np.nan  # the first image of a batch, which is the first tile of an image
        return maps

    monkeypatch.setattr(detector, "log_probs", overflow)
    broken, whole = detector.predict(files[:2])
    (tiled,) = detector.predict([pixels[:32]], tile=True)
    assert whole.anomalous is not None
    for prediction in (broken, tiled):
        assert (prediction.p_value, prediction.anomalous) == (None, None)
        assert "not a number" in prediction.reason


def test_a_run_of_another_version_is_named(run, tmp_path):
    shutil.copytree(run[0] / "run", tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    del config["eval"]["image_score"]
    file.write_text(json.dumps(config))
    for use in (flowad_jax.load, summary.evaluate_workdir):
        with pytest.raises(UserError, match=r"config\.json has no eval\.image_score: another"):
            use(tmp_path / "run")


def test_regions_are_boxes_in_pixels():
    values = np.zeros((9, 12), np.float32)
    values[1:3, 4:7], values[2, 5] = 1.0, 3.0
    values[5, 9] = values[6, 10] = 2.0  # they touch at a corner
    first, second = regions.find(values, 0.5)
    assert first == (4, 1, 7, 3, 6, 3.0)
    assert second == (9, 5, 11, 7, 2, 2.0)
    assert regions.find(values, 3.0) == ()
