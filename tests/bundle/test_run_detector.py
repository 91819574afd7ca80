"""The runtime of an exported detector decides as the package does."""

import math

import numpy as np
import pytest
from PIL import Image

from flowad_jax import canvas
from flowad_jax.bundle.run import Detector
from flowad_jax.evaluation.decisions import Decisions
from flowad_jax.flowad_runtime import decisions, errors, regions
from flowad_jax.flowad_runtime.canvas import Box
from flowad_jax.inference import regions as package
from tests.bundle import stub
from tests.data.image_files import picture

CROSS = [[0.11, 0.2, 0.35], [0.3, 0.7, 0.45, 0.52]]


def images(count=7):
    """Photographs with squares of several brightness."""
    rng = np.random.default_rng(0)
    for index in range(count):
        image = rng.normal(60, 10, (40 + 3 * index, 61, 3)).clip(0, 255).astype(np.uint8)
        image[5 : 9 + index, 7:20] += np.uint8(15 * index)
        image[20:24, 30:33] = 40 * index
        yield image


def same(found, expected):
    assert found.score == pytest.approx(expected.score, rel=1e-6, nan_ok=True)
    for name in ("p_value", "anomalous", "decided_by"):
        assert getattr(found, name) == getattr(expected, name), name
    assert (found.reason is None) == (expected.reason is None)
    np.testing.assert_array_equal(found.map, expected.map)
    assert found.map.dtype == np.float32
    assert [tuple(one) for one in found.regions] == [tuple(one) for one in expected.regions]


@pytest.mark.parametrize("backend", stub.BACKENDS)
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_predictions_are_those_of_the_package(tmp_path, backend, fit):
    folder = stub.write(tmp_path / "a.flowad", fit=fit, height=24, width=40)
    detector, expected = Detector(folder, backend), stub.Bright(stub.read(folder))
    found = detector.predict(images())
    assert {one.anomalous for one in found} == {True, False}
    assert any(len(one.regions) > 1 for one in found)
    for one, other in zip(found, expected.predict([*images()]), strict=True):
        same(one, other)


@pytest.mark.parametrize("kind", ["split", "cross", "cross_fast"])
@pytest.mark.parametrize("rate", [None, 0.01, 0.2, 0.9])
@pytest.mark.parametrize("threshold", [None, 0.4])
@pytest.mark.parametrize("count", [0, 1, 19])
def test_every_rate_threshold_and_calibration(tmp_path, kind, rate, threshold, count):
    normal = [stub.NORMAL[0][:count]]
    if kind == "cross":
        normal = [fold[: count or 0] for fold in CROSS]
    folder = stub.write(tmp_path / "a.flowad", normal=normal, kind=kind)
    detector = Detector(folder, false_alarm_rate=rate, threshold=threshold)
    expected = stub.Bright(stub.read(folder), rate, threshold)
    for key, value in detector.thresholds.items():
        assert value == expected.thresholds[key], key
    assert bool(detector.thresholds) == bool(expected.thresholds)
    for one, other in zip(detector.predict(images()), expected.predict([*images()]), strict=True):
        same(one, other)


@pytest.mark.parametrize("setting", [None, 0, 0.01, 3, 13, 1000])
def test_small_regions_are_dropped_but_the_highest(tmp_path, setting):
    def change(card):
        card.update(min_region=setting, position=9.0)

    folder = stub.write(tmp_path / "a.flowad", change=change)
    expected = stub.Bright(stub.read(folder)).predict([*images()])
    for one, other in zip(Detector(folder).predict(images()), expected, strict=True):
        same(one, other)


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_decisions_of_random_scores(count):
    rng = np.random.default_rng(count)
    for trial in range(40):
        kind = decisions.KINDS[trial % 3]
        folds = [
            rng.lognormal(size=n) for n in ([count, count + 1] if kind == "cross" else [count])
        ]
        rate = float(rng.choice([0.003, 0.05, 0.1, 1 / (count + 1), 0.5, 0.77]))
        made = decisions.make_card(folds, folds, rate, kind, None)
        expected = Decisions(folds, folds, rate, kind)
        assert made == {key: expected.card[key] for key in made}
        scores = np.concatenate([rng.lognormal(size=8), folds[0][:2] * (1 + 1e-7), [np.inf]])
        rows = np.stack([scores] * len(folds))
        p_values = expected.p_values(rows)
        assert [decisions.p_value(row, folds) for row in rows.T] == list(p_values)
        wanted = expected.anomalous(scores, p_values)
        if wanted is not None:
            found = [decisions.decide(made, *one) for one in zip(scores, p_values, strict=True)]
            assert found == list(wanted)


@pytest.mark.parametrize("density", [0.02, 0.3, 0.45, 0.6, 0.95, 1.0])
def test_regions_of_random_maps(density):
    rng = np.random.default_rng(int(100 * density))
    for shape in ((1, 1), (1, 17), (23, 1), (40, 31), (90, 120)):
        values = rng.random(shape).astype(np.float32)
        values[rng.random(shape) < 0.1] = np.nan
        peaks = np.round(values, 1)  # many are equal
        for seen in (Box(0, 0, *shape), Box(0, 0, shape[0], max(1, shape[1] // 2))):
            for least, keep in ((0, False), (4, False), (5000, True)):
                expected = package.find(peaks, 1 - density, canvas.Box(*seen))
                expected = package.drop_small(expected, least, keep)
                found = regions.find(peaks, 1 - density, seen, least, keep)
                assert [tuple(one) for one in found] == [tuple(one) for one in expected]


def spiral(side):
    """A single winding path, the hardest shape to connect."""
    inside = np.zeros((side, side), np.float32)
    for ring in range(0, side // 2, 2):
        inside[ring, max(0, ring - 2) : side - ring] = 1
        inside[ring : side - ring, side - ring - 1] = 1
        inside[side - ring - 1, ring : side - ring] = 1
        inside[ring + 2 : side - ring, ring] = 1
    return inside


def test_winding_regions():
    for values in (spiral(60), 1 - spiral(60), spiral(61).T, np.eye(50), np.eye(50)[::-1]):
        expected = package.find(values, 0.5)
        found = regions.find(values, 0.5, Box(0, 0, *values.shape), 0, False)
        assert [tuple(one) for one in found] == [tuple(one) for one in expected]


def test_not_a_number_is_never_normal(tmp_path):
    graph = stub.model(broken=True).SerializeToString()
    found = Detector(stub.write(tmp_path / "a.flowad", graph)).predict(picture())
    assert math.isnan(found.score)
    assert (found.anomalous, found.p_value, found.decided_by) == (None, None, None)
    assert "not a number" in found.reason
    assert found.describe() == "undecided, no score, no p-value"


def test_what_predict_takes(tmp_path):
    folder = stub.write(tmp_path / "a.flowad")
    detector, path = Detector(folder, threads=1), tmp_path / "b.png"
    Image.fromarray(picture()).save(path)
    single = [path, str(path), picture(), Image.fromarray(picture())]
    for one in single:
        assert detector.predict(one).score == detector.predict([one])[0].score
    assert detector.predict(path).path == str(path)
    assert detector.predict(picture()).path is None
    assert len(detector.predict(np.stack([picture()] * 9))) == 9
    assert detector.predict([]) == []
    for wrong in (7, None, "gone.png", tmp_path, [[1, 2]], {"a": 1}):
        with pytest.raises(errors.UserError):
            detector.predict(wrong)


def test_a_graph_for_single_images(tmp_path):
    def change(card):
        card["batch"] = {"dynamic": False, "most": 1}

    graph = stub.model(batch=1).SerializeToString()
    folder = stub.write(tmp_path / "a.flowad", graph, change)
    expected = stub.Bright(stub.read(folder)).predict([*images()])
    detector = Detector(folder)
    detector.batch_size = 3
    for one, other in zip(detector.predict(images()), expected, strict=True):
        same(one, other)
