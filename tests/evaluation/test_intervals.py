"""Intervals of metrics against brute force, and whether they cover what they say they cover."""

import itertools

import numpy as np
import pytest
from scipy import stats

from flowad_jax.errors import UserError
from flowad_jax.evaluation import (
    delong,
    image_counts,
    intervals,
    metrics,
    outcome,
    spro,
    weighted,
)
from flowad_jax.types import Defect
from tests.evaluation.test_metrics import blobs, of_different_sizes, scores_for


def made_up(images=24, seed=0, shift=1.5):
    """Half of the images with defects."""
    masks = blobs(seed, (images, 24, 20))
    masks[: images // 2] = False
    maps = np.random.default_rng(seed).normal(size=masks.shape).astype(np.float32) + shift * masks
    labels = masks.any((1, 2)).astype(int)
    noise = np.random.default_rng(seed + 1).normal(size=images)
    return labels, maps.max((1, 2)) + noise, masks, maps


def gathered(labels, scores, masks=None, maps=None, overlap=None):
    names = [f"{index}.png" for index in range(len(labels))]
    return outcome.gather(names, labels, scores, None, masks, maps, overlap)


@pytest.mark.parametrize("seed", range(5))
def test_a_selection_of_images_has_the_metrics_that_it_would_have_as_a_test_set(seed):
    labels, scores, masks, maps = made_up(seed=seed)
    found = gathered(labels, scores, masks, maps)
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.choice(np.flatnonzero(labels == value), 12) for value in (0, 1)])
    weights = np.bincount(rows, minlength=len(labels))[None]
    selected = weighted.metrics(found, weights)
    expected = metrics.evaluate(labels[rows], scores[rows], masks[rows], maps[rows])
    for name, value in expected.items():
        limit = 1e-9 if name in metrics.IMAGE_METRICS else 6e-3
        assert selected[name][0] == pytest.approx(value, abs=limit), name


def test_ties_and_constants_are_one_threshold():
    labels, scores = np.array([0, 0, 1, 1, 1]), np.array([1.0, 2.0, 2.0, 2.0, 0.5])
    once = np.ones((1, 5))
    for values in (scores, np.zeros(5), -scores):
        found = weighted.metrics(gathered(labels, values), once)
        expected = metrics.image_metrics(labels, values)
        assert {name: found[name][0] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("maps", ["many sizes", "constant", "ties", "other maps for regions"])
def test_thresholds_are_dense_enough(maps):
    if maps == "many sizes":
        masks, values = of_different_sizes()
    else:
        masks = blobs(1, (6, 40, 40))
        values = scores_for(masks, 2)
    values = {"constant": np.zeros_like, "ties": np.round}.get(maps, lambda x: x)(values)
    other = [one**3 - 7 for one in values] if maps == "other maps for regions" else None
    labels = np.array([int(mask.any()) for mask in masks])
    scores = np.array([one.max() for one in values])
    found = weighted.metrics(
        gathered(labels, scores, masks, values, other), np.ones((1, len(labels)))
    )
    expected = metrics.evaluate(labels, scores, masks, values, other)
    for name in metrics.PIXEL_METRICS:
        assert found[name][0] == pytest.approx(expected[name], abs=2e-3), name


def test_counts_are_those_of_each_image():
    masks, maps = blobs(3), scores_for(blobs(3), 4)
    found = image_counts.count(masks, maps)
    np.testing.assert_array_equal(found.true[:, -1], masks.sum((1, 2)))
    np.testing.assert_array_equal(found.false[:, -1], (~masks).sum((1, 2)))
    np.testing.assert_allclose(found.overlap[:, -1], found.regions, rtol=1e-6)
    for rows in found[:3]:
        assert (np.diff(rows, axis=1) >= 0).all()


def test_delong_is_the_variance_of_its_definition():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [13, 9])
    scores = np.round(rng.normal(size=(3, 22)) + labels, 1)  # with ties
    areas, spread = delong.covariance(labels, scores)
    told = [
        (row[labels == 1][:, None] > row[labels == 0]) * 1.0
        + 0.5 * (row[labels == 1][:, None] == row[labels == 0])
        for row in scores
    ]
    for i, j in itertools.product(range(3), repeat=2):
        of_anomalous = np.cov(told[i].mean(1), told[j].mean(1))[0, 1] / 9
        of_normal = np.cov(told[i].mean(0), told[j].mean(0))[0, 1] / 13
        assert spread[i, j] == pytest.approx(of_anomalous + of_normal, abs=1e-12)
    np.testing.assert_allclose(areas, [one.mean() for one in told], atol=1e-12)


def test_a_perfect_detector_on_few_images_is_not_certain():
    labels = np.repeat([0, 1], 5)
    low, high = delong.interval(labels, labels.astype(float))
    assert 0.5 < low < 0.8
    assert high == 1
    assert delong.interval(labels, -labels.astype(float)) == pytest.approx((0, 1 - low))
    assert delong.interval(np.array([0, 1, 1]), np.arange(3.0)) is None


def test_newcombe_is_the_root_of_its_equation():
    low, high = delong.newcombe(0.8, 20, 30)
    z, factor = stats.norm.ppf(0.975), 50 / 2 - 1
    for end in (low, high):
        inner = 1 + factor * (1 - end) / (2 - end) + factor * end / (1 + end)
        assert abs(end - 0.8) == pytest.approx(z * np.sqrt(end * (1 - end) * inner / 600))


@pytest.mark.parametrize("way", ["bootstrap", "DeLong"])
def test_intervals_cover_the_truth_as_often_as_they_say(way):
    """Scores of two normal distributions, whose area is known; 95 % of 200 draws."""
    rng, labels, truth = np.random.default_rng(0), np.repeat([0, 1], 30), stats.norm.cdf(2**-0.5)
    covered = []
    for _ in range(200):
        found = gathered(labels, rng.normal(size=60) + labels)
        if way == "DeLong":
            low, high = delong.interval(labels, found.scores)
        else:
            low, high = intervals._bootstrap(labels, lambda w, f=found: weighted.metrics(f, w))[1][
                "image_auroc"
            ]
        covered.append(low <= truth <= high)
    assert 0.89 <= np.mean(covered) <= 0.99


def test_intervals_hold_the_figure_and_shrink_with_more_images():
    widths = []
    for images in (12, 96):
        labels, scores, masks, maps = made_up(images)
        exact = metrics.evaluate(labels, scores, masks, maps)
        found = intervals.of(gathered(labels, scores, masks, maps), exact)
        assert found.keys() >= {"image_auroc", "pixel_auroc", "aupro_0.30"}
        for name, (low, high) in found.items():
            assert 0 <= low <= exact[name] <= high <= 1, name
        widths.append(np.subtract(*found["pixel_ap"][::-1]))
    assert widths[1] < widths[0]
    assert found == intervals.of(gathered(labels, scores, masks, maps), exact)


def test_what_is_undefined_has_no_interval():
    labels, scores, masks, maps = made_up()
    bad = labels == 1
    exact = metrics.evaluate(labels[bad], scores[bad], masks[bad], maps[bad])
    found = intervals.of(gathered(labels[bad], scores[bad], masks[bad], maps[bad]), exact)
    assert "pixel_auroc" in found
    assert "image_auroc" not in found
    one = np.array([0, 1, 1])
    assert intervals.of(gathered(one, np.arange(3.0)), metrics.image_metrics(one, one)) == {}
    without_masks = intervals.of(gathered(labels, scores), metrics.image_metrics(labels, scores))
    assert set(without_masks) == set(metrics.IMAGE_METRICS)


def test_overlaps_of_single_defects_have_intervals_by_kind_and_on_the_mean():
    rng, kinds = np.random.default_rng(0), ["good"] * 8 + ["a"] * 6 + ["b"] * 6
    maps = rng.normal(size=(20, 16, 16))
    defects = [[] for _ in kinds]
    for row in range(8, 20):
        mask = np.zeros((16, 16), bool)
        mask[3:9, row % 7 : row % 7 + 5] = True
        maps[row][mask] += 1.0 + (kinds[row] == "b")
        defects[row] = [Defect(mask, 0.5), Defect(mask.T, 4, False)]
    exact = {}
    for kind in "ab":
        rows = [row for row, own in enumerate(kinds) if own in ("good", kind)]
        exact[kind] = spro.au_spro([defects[r] for r in rows], [maps[r] for r in rows])[0.3]
    exact[""] = np.mean(list(exact.values()))
    counts = image_counts.count_defects(defects, maps)
    both = weighted.aupro(counts, np.ones((1, 20), np.float32), 0.3)[0]
    assert both == pytest.approx(spro.au_spro(defects, maps)[0.3], abs=5e-3)
    found = intervals.of_overlaps(kinds, counts, exact, 0.3)
    for kind, (low, high) in found.items():
        assert low < exact[kind] < high
    assert set(found) == {"a", "b", ""}


def test_a_difference_is_found_where_there_is_one_and_only_there():
    labels, scores, masks, maps = made_up(60, shift=1.0)
    one = gathered(labels, scores, masks, maps)
    better = gathered(labels, scores + 2 * labels, masks, maps + masks)
    same = intervals.of_difference(one, one)
    assert same["image_auroc"].value == 0
    assert same["image_auroc"].p_value == 1
    found = intervals.of_difference(one, better)
    for name in ("image_auroc", "pixel_auroc", "aupro_0.30"):
        assert found[name].value > 0
        assert found[name].interval[0] > 0
        assert found[name].p_value < 0.05
    back = intervals.of_difference(better, one)
    assert back["pixel_auroc"].value == pytest.approx(-found["pixel_auroc"].value)


def test_chance_differences_are_called_real_as_often_as_they_should_be():
    rng, labels, found = np.random.default_rng(1), np.repeat([0, 1], 25), []
    for _ in range(200):
        common = rng.normal(size=50) + labels
        two = common + rng.normal(size=(2, 50))
        found.append(delong.p_value(labels, two))
    assert 0.01 <= np.mean(np.less(found, 0.05)) <= 0.1


def test_outcomes_are_read_as_they_were_written(tmp_path):
    labels, scores, masks, maps = made_up()
    flagged = scores > 2
    labels[3] = metrics.UNKNOWN
    names = [f"{index}.png" for index in range(len(labels))]
    for given in ((masks, maps), (masks, maps, maps**2), ()):
        written = outcome.gather(names, labels, scores, flagged, *given)
        outcome.write(tmp_path, written)
        found = outcome.read(tmp_path)
        assert "3.png" not in found.names
        assert len(found.names) == len(labels) - 1
        for one, other in zip(found, written, strict=True):
            if one is None:
                assert other is None
            else:
                for x, y in zip(one, other, strict=True):
                    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "change",
    [
        {"scores": np.zeros(3)},
        {"scores": np.full(24, np.nan)},
        {"labels": np.full(24, 2)},
        {"names": np.arange(24)},
        {"flagged": np.array(["x"] * 24)},
        {"pixel.true": np.zeros((24, 3), np.float32)},
        {"pixel.false": np.zeros(24, np.float32)},
        {"pixel.regions": None},
    ],
)
def test_an_outcome_of_strangers_is_refused_where_it_does_not_fit(tmp_path, change):
    labels, scores, masks, maps = made_up()
    outcome.write(tmp_path, gathered(labels, scores, masks, maps))
    with np.load(tmp_path / outcome.FILE) as stored:
        arrays = {**stored, **change}
    with (tmp_path / outcome.FILE).open("wb") as file:
        np.savez(file, **{name: values for name, values in arrays.items() if values is not None})
    with pytest.raises(UserError, match=r"outcome\.npz is damaged"):
        outcome.read(tmp_path)


def test_an_outcome_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(outcome, "LIMIT", 1000)
    outcome.write(tmp_path, gathered(*made_up()))
    with pytest.raises(UserError, match=r"outcome\.npz is damaged"):
        outcome.read(tmp_path)


def test_a_missing_or_damaged_outcome_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"outcome\.npz is missing: flowad eval --workdir="):
        outcome.read(tmp_path)
    for content in (b"", b"PK\x03\x04 no", b"\x93NUMPY"):
        (tmp_path / outcome.FILE).write_bytes(content)
        with pytest.raises(UserError, match=r"outcome\.npz is damaged: flowad eval"):
            outcome.read(tmp_path)
