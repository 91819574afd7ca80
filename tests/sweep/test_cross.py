"""Detectors of folds: what they hold out, what they say together, and what does not mix."""

import shutil

import numpy as np
import pytest

import flowad_jax
from flowad_jax.bundle import card, export
from flowad_jax.bundle.card import GraphOptions
from flowad_jax.detector import folds
from flowad_jax.detector.model import build_model
from flowad_jax.doctor import workdir as doctor
from flowad_jax.errors import UserError
from flowad_jax.evaluation import conformal
from flowad_jax.interrupt import Interrupted
from flowad_jax.sweep import cross
from flowad_jax.training import rescore, summary
from tests.conftest import shared_recipe, write_image
from tests.training.test_loop import stop_after_steps

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module", name="root")
def _root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cross")
    for index in range(12):
        write_image(root / "images" / "train" / "good" / f"{index}.png", index)
    for index in range(3):
        write_image(root / "images" / "test" / "good" / f"{index}.png", 100 + index)
        write_image(root / "images" / "test" / "spot" / f"{index}.png", 200 + index, defect=True)
    return root


def recipe(root, kind):
    config = shared_recipe(root)
    config.train.epochs, config.eval.folds, config.eval.calibration = 2, 5, kind
    config.eval.false_alarm_rate, config.eval.report_images = 0.2, 3
    return config


@pytest.fixture(scope="module", name="runs")
def _runs(root):
    """Results of a run of each kind; the first was stopped between its folds."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after_steps(patch, 7)
        with pytest.raises(Interrupted):
            cross.train(recipe(root, "cross"), root / "cross")
    return {kind: cross.train(recipe(root, kind), root / kind) for kind in ("cross", "cross_fast")}


def test_all_images_count_fold_by_fold(root, runs):
    """The p-values of the ensemble are those that its folds' own detectors give together."""
    files = sorted((root / "images" / "test").glob("*/*.png"))
    detector = flowad_jax.load(root / "cross")
    parts = [flowad_jax.load(root / "cross" / "folds" / str(number)) for number in range(5)]
    alone = np.array([[found.score for found in part.predict(files)] for part in parts])
    normal = [part._predictor.parts[0].fitted.image for part in parts]
    assert sorted(map(len, normal)) == [2, 2, 2, 3, 3]
    expected = conformal.cross_p_values(alone, normal)
    together = detector.predict(files)
    np.testing.assert_allclose([found.p_value for found in together], expected)
    np.testing.assert_allclose([found.score for found in together], alone.mean(0), rtol=1e-6)
    assert [found.anomalous for found in together] == [p <= 0.2 for p in expected]
    card = runs["cross"]["thresholds"]
    assert (card["images"], card["decided_by"], card["image"]) == (12, "promise", None)
    assert card["promised"] == conformal.cross_bound(12, 5, 0.2)
    assert {key: value for key, value in card.items() if key != "test"} == detector.thresholds
    flags = [found.anomalous for found in together]
    assert (card["test"]["false_alarms"], card["test"]["detected"]) == (
        sum(flags[:3]),
        sum(flags[3:]),
    )
    assert "guaranteed are at most" in (root / "cross" / "report.html").read_text()
    tiled = detector.predict(files[0], tile=True)
    assert (tiled.decided_by, tiled.reason) == ("promise", None)


def test_the_fast_kind_is_an_estimate(root, runs):
    detector, card = flowad_jax.load(root / "cross_fast"), runs["cross_fast"]["thresholds"]
    (part,) = detector._predictor.parts
    found = [np.sort(fold.fitted.image) for fold in _folds(root, "cross_fast")]
    np.testing.assert_array_equal(np.sort(part.fitted.image), np.sort(np.concatenate(found)))
    assert runs["cross_fast"]["data"]["train"]["images"] == 12
    assert (card["decided_by"], card["promised"], card["images"]) == ("estimate", None, 12)
    assert "an estimate, not a promise" in summary.headline(runs["cross_fast"])
    file = next((root / "images" / "test" / "spot").iterdir())
    assert detector.predict(file).decided_by == "estimate"


def _folds(root, kind):
    config = recipe(root, kind)
    return folds.read(build_model(config), root / kind, config)


@pytest.mark.parametrize("kind", ["cross", "cross_fast"])
def test_a_workdir_works_as_any_other(root, runs, kind, tmp_path):
    again = rescore.evaluate_workdir(root / kind)
    for key in ("thresholds", "data"):
        assert again[key] == runs[kind][key]
    assert again["columns"]["last"] == runs[kind]["columns"]["last"]
    assert doctor.examine(str(root / kind)).problems == []
    file = next((root / "images" / "test" / "spot").iterdir())
    detector = flowad_jax.load(root / kind)
    detector.save(tmp_path / "saved")
    moved = flowad_jax.load(tmp_path / "saved")
    assert moved.predict(file).p_value == detector.predict(file).p_value
    with pytest.raises(UserError, match=r"another config \(eval\.calibration"):
        cross.train(recipe(root, "split"), root / kind)


def test_detectors_of_other_runs_do_not_mix(root, runs, tmp_path):
    shutil.copytree(root / "cross", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "folds" / "1")
    with pytest.raises(UserError, match="folds/1 holds no detector: give the command"):
        flowad_jax.load(tmp_path / "run")
    shutil.copytree(root / "cross" / "folds" / "2", tmp_path / "run" / "folds" / "1")
    with pytest.raises(UserError, match=r"folds/1 holds a detector of another run \(data\.fold"):
        flowad_jax.load(tmp_path / "run")


@pytest.mark.parametrize("kind", ["cross", "cross_fast"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_exported_detector_says_the_same(root, runs, tmp_path, kind, dtype):
    found = export.export(root / kind, str(tmp_path / "a.flowad"), GraphOptions(dtype))
    about = card.read(found.place)
    held_out = [3, 3, 2, 2, 2] if kind == "cross" else [12]  # of every part
    assert about["calibration"]["kind"] == kind
    assert about["graph"]["outputs"]["score"] == ["float32", ["B", len(held_out)]]
    assert [len(one) for one in about["calibration"]["image"]] == held_out
    assert {one.images for one in found.agreements[:-1]} == {6}
