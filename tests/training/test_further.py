"""Metrics that only some data define: the detector's threshold, single defects, several views."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from flowad_jax.canvas import Canvas
from flowad_jax.data import sources
from flowad_jax.errors import UserError
from flowad_jax.evaluation import mask_resolution, metrics, released_aupro, spro
from flowad_jax.evaluation.aupimo import aupimo, mean
from flowad_jax.training import further
from flowad_jax.types import Scores
from tests.data import layouts

CANVAS = Canvas.of((24, 32))
CONFIG = [
    {"pixel_value": 200, "saturation_threshold": 0.25, "relative_saturation": True},
    {"pixel_value": 201, "saturation_threshold": 3, "relative_saturation": False},
]


def scored(test, native=False, pixel=0.5, seed=0, scoring="calibrated"):
    """What `measure` reads: an experiment and scores of its test images."""
    rng, count = np.random.default_rng(seed), len(test)
    maps = rng.normal(size=(count, *CANVAS.shape)).astype(np.float32)
    settings = {"mask_size": "native" if native else "network", "scoring": scoring}
    config = SimpleNamespace(
        eval=SimpleNamespace(**settings), method=SimpleNamespace(name="msflow")
    )
    method = SimpleNamespace(published="per_image")
    experiment = SimpleNamespace(test=test, canvas=CANVAS, config=config, method=method)
    if native:
        masks = [test[index].mask for index in range(count)]
        compared = (
            masks,
            mask_resolution.resized(maps, [mask.shape for mask in masks], CANVAS),
            None,
        )
    else:
        masks = np.array([test.resized(index, CANVAS, "bilinear").mask for index in range(count)])
        compared = (masks, maps, None)
    decisions = SimpleNamespace(card={} if pixel is None else {"pixel": pixel})
    scores = Scores(maps.max((1, 2)), maps)
    return experiment, SimpleNamespace(compared=compared, decisions=decisions, scores=scores)


@pytest.fixture(name="loco")
def _loco(tmp_path):
    layouts.write_mvtec_loco(tmp_path)
    (tmp_path / "breakfast_box" / "defects_config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_anomalies_of_loco_are_known_one_by_one(loco):
    test = sources.build("mvtec_loco", str(loco), "breakfast_box", "test")
    found = {kind: test.defects(row) for row, kind in enumerate(test.kinds) if kind != "good"}
    assert [len(found[kind]) for kind in ("logical_anomalies", "structural_anomalies")] == [2, 1]
    first, second = found["logical_anomalies"]
    np.testing.assert_array_equal(first.mask | second.mask, layouts.DEFECT)
    assert (first.saturation, first.relative) == (0.25, True)
    assert (second.saturation, second.relative) == (3, False)


def test_au_spro_is_the_mean_over_kinds_each_with_all_good_images(loco):
    test = sources.build("mvtec_loco", str(loco), "breakfast_box", "test")
    experiment, found = scored(test)
    measured = further.measure(experiment, found)
    top = found.scores.pixel.max()
    maps = [mask_resolution.at_image(m - top, CANVAS, (48, 64)) for m in found.scores.pixel]
    expected = []
    for kind in ("logical_anomalies", "structural_anomalies"):
        rows = [row for row, own in enumerate(test.kinds) if own in ("good", kind)]
        areas = spro.au_spro([test.defects(row) for row in rows], [maps[row] for row in rows])
        assert measured[f"au_spro/{kind}"].value == pytest.approx(areas[0.05])
        expected.append(areas[0.05])
    assert measured["au_spro"].value == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("native", [False, True])
def test_seg_f1_and_aupimo_are_of_the_masks_that_are_compared(loco, native):
    test = sources.build("mvtec_loco", str(loco), "breakfast_box", "test")
    experiment, found = scored(test, native)
    measured = further.measure(experiment, found)
    masks, maps, _ = found.compared
    threshold = 0.5 - (found.scores.pixel.max() if native else 0)
    called = np.concatenate([np.ravel(values > threshold) for values in maps])
    truth = np.concatenate([np.ravel(mask) for mask in masks])
    expected = 2 * np.sum(called & truth) / (np.sum(called) + np.sum(truth))
    assert measured["seg_f1"].value == pytest.approx(expected)
    low, high = measured["seg_f1"].interval
    assert low <= expected <= high
    assert measured["aupimo"].value == pytest.approx(mean(aupimo(masks, maps)))


def test_the_released_form_of_aupro_is_for_scores_of_the_papers_form(loco):
    test = sources.build("mvtec_loco", str(loco), "breakfast_box", "test")
    experiment, found = scored(test, scoring="per_image")
    measured = further.measure(experiment, found)
    form = released_aupro.FORMS["msflow"]
    expected = released_aupro.released_aupro(*found.compared[:2], form)
    assert measured["aupro_released"].value == expected
    assert "aupro_released" not in further.measure(*scored(test))


def test_what_the_data_do_not_define_is_left_out(loco):
    test = sources.build("mvtec_loco", str(loco), "breakfast_box", "test", masks="none")
    experiment, found = scored(test)
    found.compared = (None, *found.compared[1:])
    assert further.measure(experiment, found) == {}
    test = sources.build("mvtec_loco", str(loco), "breakfast_box", "test")
    assert "seg_f1" not in further.measure(*scored(test, pixel=None))


def test_a_list_of_anomalies_that_is_damaged_is_one_line(loco):
    file = loco / "breakfast_box" / "defects_config.json"
    file.write_text(json.dumps(CONFIG[:1]))
    test = sources.build("mvtec_loco", str(loco), "breakfast_box", "test")
    with pytest.raises(UserError, match=r"grey value 201, which defects_config\.json lacks"):
        further.measure(*scored(test))
    file.write_text('[{"pixel_value": 0}]')
    with pytest.raises(UserError, match="restore the file that comes with MVTec LOCO AD"):
        sources.build("mvtec_loco", str(loco), "breakfast_box", "test")
    file.unlink()
    test = sources.build("mvtec_loco", str(loco), "breakfast_box", "test")
    assert not any(name.startswith("au_spro") for name in further.measure(*scored(test)))


def test_a_sample_is_as_anomalous_as_the_worst_of_its_views():
    names = ["a", "a", "b", "b", "c", "d"]
    test = SimpleNamespace(
        labels=np.array([0, 0, 1, 0, 0, metrics.UNKNOWN]), samples=names, kinds=[], has_masks=False
    )
    experiment = SimpleNamespace(test=test)
    image = np.array([1.0, 4.0, 3.0, 0.0, 2.0, 9.0])
    found = SimpleNamespace(compared=(None, None, None), scores=Scores(image, image[:, None, None]))
    value, interval = further.measure(experiment, found)["sample_auroc"]
    assert value == pytest.approx(0.5)  # 3 above 2 and below 4
    assert interval is None  # of one anomalous sample
    test.samples = [*names[:5], ""]
    assert further.measure(experiment, found) == {}


def test_views_of_real_iad_belong_to_samples(tmp_path):
    layouts.write_real_iad(tmp_path)
    test = sources.build("real_iad", str(tmp_path), "audiojack", "test")
    assert 1 <= len(set(test.samples)) < len(test)
    assert all(test.samples)
