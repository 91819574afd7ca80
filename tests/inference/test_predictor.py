"""A trained detector: the same scores as the evaluation, one image at a time."""

import copy
import dataclasses
import json
import logging
import shutil

import numpy as np
import pytest

import flowad_jax
from flowad_jax.data.images import read_image
from flowad_jax.detector import state
from flowad_jax.detector.workdir import load_config
from flowad_jax.errors import UserError
from flowad_jax.evaluation import conformal
from flowad_jax.inference import regions
from flowad_jax.inference.predictor import Predictor
from flowad_jax.training import rescore, scoring
from flowad_jax.training.experiment import build


@pytest.fixture(scope="module", name="experiment")
def _experiment(run):
    """The run's experiment, its state and what lies beside that."""
    system = build(load_config(run[0] / "run"))
    trained, _, meta = state.of_workdir(system, run[0] / "run")
    return system, trained, meta


def again(detector, rate=0.3, fitted=None, threshold=None, **options):
    """The same detector with another false-alarm rate, calibration or data options."""
    (part,), model = detector.parts, detector.model
    config = copy.deepcopy(model.config)
    with config.unlocked():
        config.data.options.update(options)
        config.eval.false_alarm_rate = rate
    parts = [part._replace(fitted=fitted or part.fitted)]
    return Predictor(dataclasses.replace(model, config=config), parts, threshold)


def test_scores_are_those_of_the_evaluation(run, experiment, trained, files):
    system, variables, _ = experiment
    fitted = scoring.fit(system, variables, system.features)
    scored = scoring.score(system, variables, system.features, fitted)
    found = trained.predict(files)
    np.testing.assert_allclose([p.score for p in found], scored.scores.image, rtol=1e-5)
    assert [p.map.shape for p in found] == [(40, 36)] * 6
    card = run[1]["thresholds"]
    flagged = [p.anomalous for p in found]
    assert card["test"]["false_alarms"] == sum(flagged[:3])
    assert card["test"]["detected"] == sum(flagged[3:])
    assert {k: v for k, v in card.items() if k != "test"} == trained.thresholds
    for prediction in found:
        assert prediction.anomalous == (prediction.score > trained.thresholds["image"])
        assert prediction.anomalous == (prediction.p_value <= 0.3)
        assert bool(prediction.regions) == bool(
            np.any(prediction.map > trained.thresholds["pixel"])
        )


def test_a_score_depends_on_its_image_alone(trained, files):
    together = trained.predict(files)
    backwards = trained.predict(files[::-1])[::-1]
    by_name = trained.predict([*map(str, files)])
    by_pixels = trained.predict([read_image(file) for file in files])
    for others in (backwards, by_name, by_pixels):
        for one, other in zip(together, others, strict=True):
            assert (one.score, one.regions) == (other.score, other.regions)
            np.testing.assert_array_equal(one.map, other.map)


def test_batches_of_all_sizes_agree(trained, files):
    """Scores differ by less than a tenth of what counts as equal, so that p-values are the same."""
    together, most = (
        trained.predict(files),
        0.1 * conformal.TIE * np.max(trained.parts[0].fitted.image),
    )
    for size in (1, 2, 3, 4, 5):
        found = [p for i in range(0, 6, size) for p in trained.predict(files[i : i + size])]
        for one, other in zip(together, found, strict=True):
            assert one.score == pytest.approx(other.score, abs=most)
            assert (one.p_value, one.anomalous) == (other.p_value, other.anomalous)
            boxes, others = ([region[:5] for region in it.regions] for it in (one, other))
            assert boxes == others
            np.testing.assert_allclose(one.map, other.map, rtol=0, atol=most)


def test_one_image_costs_one_image(trained, files, monkeypatch):
    """Few sizes are compiled, whatever the number of images."""
    seen, encode = [], trained.model.encode
    counted = lambda variables, image: seen.append(len(image)) or encode(variables, image)  # noqa: E731
    monkeypatch.setattr(trained, "model", dataclasses.replace(trained.model, encode=counted))
    for count in (1, 2, 3, 4, 5, 6):
        trained.predict(files[:count])
    assert seen == [1, 2, 4, 4, 7, 7]
    trained.predict([*files, *files])
    assert seen[6:] == [7, 7]


def test_a_held_out_image_has_the_score_that_was_stored(experiment, trained, files):
    """To the last bit in batches of the evaluation's size; else it could itself be anomalous."""
    system, variables, meta = experiment
    stored, paths = meta["fitted"]["image"], system.holdout.paths
    assert len(stored) == 4
    for loader in (system.holdout_loader, system.calibration_loader, system.test_loader):
        assert loader.batch_size == next(loader.epoch(0)).image.shape[0] == trained.batch_size
    for first in range(trained.batch_size - 3):
        found = trained.predict([*files[:first], *paths, *files])[first : first + 4]
        assert [p.score for p in found] == stored
    assert min(p.p_value for p in found) == 2 / 5  # of the highest: itself and the new one
    fitted = scoring.fit(system, variables, system.features)
    assert fitted.image.tolist() == stored
    as_test = dataclasses.replace(system, test=system.holdout, test_loader=system.holdout_loader)
    scored = scoring.score(as_test, variables, as_test.features, fitted)
    assert scored.scores.image.tolist() == stored


def test_few_images_promise_little(run, trained, caplog):
    with caplog.at_level(logging.INFO, "flowad_jax"):
        detector = again(trained, 0.01)
    assert detector.thresholds["promised"] == 0.2  # four held-out images
    line = "an estimate from the tail of 4 held-out images, which promise at most 20 %"
    assert line in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    with pytest.raises(UserError, match="false_alarm_rate=2"):
        flowad_jax.load(run[0] / "run", false_alarm_rate=2)
    none = trained.parts[0].fitted._replace(image=np.zeros(0), peak=np.zeros(0))
    assert again(trained, fitted=none).thresholds == {}
    assert "training held no images out" in caplog.text
    assert [again(trained, **options).white for options in ({}, {"white": 4095})] == [65535, 4095]


def test_a_threshold_decides_in_the_place_of_a_rate(run, trained, files):
    before = trained.predict(files)
    middle = sorted(p.score for p in before)[3]
    detector = flowad_jax.load(run[0] / "run", threshold=middle)
    for one, other in zip(before, detector.predict(files), strict=True):
        assert (other.score, other.p_value) == (one.score, one.p_value)
        assert (other.anomalous, other.decided_by) == (one.score > middle, "threshold")
        assert one.decided_by == "promise"
    assert {p.decided_by for p in again(trained, 0.01).predict(files)} == {"estimate"}
    assert detector.predict(files[:1], tile=True)[0].anomalous is not None
    none = trained.parts[0].fitted._replace(image=np.zeros(0), peak=np.zeros(0))
    (found,) = again(trained, fitted=none, threshold=-9.0).predict(files[:1])
    assert (found.anomalous, found.p_value, found.regions) == (True, None, ())


@pytest.mark.parametrize(
    "wrong",
    [
        "one.png", b"one.png", None, 3, {"image": 1}, np.zeros((8, 8, 3), np.uint8),
        [np.zeros((0, 8, 3), np.uint8)], [np.zeros((8, 0, 3), np.uint8)],
        [np.zeros((0, 0, 3), np.uint8)], [np.zeros((8, 8, 3, 1), np.uint8)],
        [np.full((8, 8, 3), np.nan)], [np.zeros((8, 8, 3), object)], [None], [b"one.png"],
        [{"image": 1}], [[1, 2]], [np.zeros((8, 8), int)], [np.zeros((8, 8, 2), np.uint8)],
        [np.full((8, 8, 3), 255.0)], [np.zeros((), np.uint8)],
        np.zeros((1, 0, 8, 3), np.uint8),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("tile", [False, True])
def test_what_is_no_image_is_said_in_one_line(trained, wrong, tile):
    with pytest.raises(UserError) as fault:
        trained.predict(wrong, tile=tile)
    assert any(words in str(fault.value) for words in ("give", "no pixels", "scale it to 0 to 1"))
    assert trained.predict([], tile=tile) == []


def test_what_is_no_detector_is_said_in_one_line(run, tmp_path):
    for workdir, rate, message in (
        (None, 0.1, "a workdir is of type"),
        (run[0] / "run", "often", "rate=often"),
        (tmp_path, None, "is not a workdir"),
    ):
        with pytest.raises(UserError, match=message):
            flowad_jax.load(workdir, rate)


def test_a_run_that_is_not_finished_or_has_another_calibration(run, monkeypatch):
    stored = state.of_workdir

    def earlier(*arguments):
        variables, position, meta = stored(*arguments)
        return variables, position._replace(epoch=3), meta

    # It has thresholds, but the state of a run under way must not decide.
    monkeypatch.setattr(state, "of_workdir", earlier)
    with pytest.raises(UserError, match="stands at epoch 3 of 4: finish it"):
        flowad_jax.load(run[0] / "run")
    monkeypatch.setattr(state, "of_workdir", stored)
    monkeypatch.setattr(state, "fitted_of", lambda *_: None)
    with pytest.raises(UserError, match="not what the thresholds were fitted with"):
        flowad_jax.load(run[0] / "run")


def test_a_run_of_another_version_is_named(run, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(run[0] / "run" / "config.json", tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    del config["eval"]["image_score"]
    file.write_text(json.dumps(config))
    for use in (flowad_jax.load, rescore.evaluate_workdir):
        with pytest.raises(UserError, match=r"config\.json has no eval\.image_score: another"):
            use(tmp_path / "run")


def test_tiles_of_a_large_image(trained, pixels, caplog):
    tile = np.ascontiguousarray(pixels[:32, :32])
    resized, cut = (trained.predict([tile], tile=choice)[0] for choice in (False, True))
    assert cut.score == pytest.approx(resized.score, rel=1e-6)  # one tile, as large as the image
    np.testing.assert_allclose(cut.map, resized.map, rtol=1e-5, atol=1e-6)
    assert cut.p_value == resized.p_value
    assert "tiles" not in caplog.text
    detector = again(trained)
    with caplog.at_level(logging.WARNING, "flowad_jax"):
        one, *large = detector.predict([tile, pixels, pixels], tile=True)
    assert (one.anomalous, one.reason) == (one.p_value <= 0.3, None)
    # Overlapping tiles of 32 in 50 x 70, each compared with the four held-out images.
    possible = {min(1.0, tiles * count / 5) for tiles in (6, 12) for count in range(1, 6)}
    for prediction in large:
        assert (prediction.anomalous, prediction.map.shape) == (None, (50, 70))
        assert "tiles has a p-value of at least 1 with 4 held-out images" in prediction.reason
        assert prediction.score >= one.score * (1 - 1e-6)
        assert prediction.p_value in possible
    assert caplog.text.count("no decision") == 1, "once, not for every image"
    detector.thresholds = {}
    assert detector.predict([pixels], tile=True)[0].p_value is None


def test_a_score_that_is_not_a_number_is_no_decision(trained, files, pixels, monkeypatch):
    detector = again(trained)
    real = detector.log_probs

    def overflow(images):
        maps = [[scale.copy() for scale in part] for part in real(images)]
        maps[0][0][0] = np.nan  # the first image of a batch, which is the first tile of an image
        return maps

    monkeypatch.setattr(detector, "log_probs", overflow)
    broken, whole = detector.predict(files[:2])
    (tiled,) = detector.predict([pixels[:32]], tile=True)
    assert whole.anomalous is not None
    for prediction in (broken, tiled):
        assert (prediction.p_value, prediction.anomalous) == (None, None)
        assert "not a number" in prediction.reason


@pytest.mark.parametrize(
    ("setting", "tile", "least"),
    [(None, False, 40 * 36 / 64), (None, True, 32 * 32 / 64), (9.0, False, 9), (0.01, True, 14.4)],
)
def test_small_regions_are_noise(trained, files, setting, tile, least):
    """By default, those below one of the 8 x 8 positions of the finest map."""
    config = copy.deepcopy(trained.model.config)
    detector = Predictor(dataclasses.replace(trained.model, config=config), trained.parts)
    found = {}
    for config.eval.min_region in (0.0, setting):
        (seen,) = detector.predict(files[:1], tile=tile)
        # So low that noise is above it.
        detector.thresholds = {**detector.thresholds, "pixel": float(np.quantile(seen.map, 0.995))}
        found[config.eval.min_region] = detector.predict(files[:1], tile=tile)[0].regions
    assert not seen.anomalous
    assert len(found[setting]) < len(found[0.0])
    assert found[setting] == tuple(region for region in found[0.0] if region.area >= least)


def test_an_anomalous_image_keeps_the_region_of_its_highest_peak():
    first, second = (regions.Region(0, 0, 3, 1, area, peak) for area, peak in ((3, 2.0), (5, 1.0)))
    assert regions.drop_small((first, second), 4) == (second,)
    assert regions.drop_small((first, second), 9) == ()
    assert regions.drop_small((first, second), 9, keep_highest=True) == (first,)
    assert regions.drop_small((), 9, keep_highest=True) == ()


def test_regions_are_boxes_in_pixels():
    values = np.zeros((9, 12), np.float32)
    values[1:3, 4:7], values[2, 5] = 1.0, 3.0
    values[5, 9] = values[6, 10] = 2.0  # they touch at a corner
    first, second = regions.find(values, 0.5)
    assert first == (4, 1, 7, 3, 6, 3.0)
    assert second == (9, 5, 11, 7, 2, 2.0)
    assert regions.find(values, 3.0) == ()
