"""Metrics against stored values, scikit-learn and a slow AUPRO that loops over thresholds."""

import itertools
import pathlib

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from flowad_jax.errors import UserError
from flowad_jax.evaluation import aupro, metrics

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "metrics.npz"


def flat(images):
    return np.concatenate([image.ravel() for image in images])


def slow_aupro(mask, score, limit):
    """One threshold at a time, counting pixels of every region of every image."""
    regions, normal = [], flat(score)[~flat(mask)]
    for one_mask, values in zip(mask, score, strict=True):
        labelled, count = ndimage.label(one_mask, structure=np.ones((3, 3)))
        regions += [values[labelled == number] for number in range(1, count + 1)]
    curve = [(0.0, 0.0)]
    for threshold in sorted(set(flat(score).tolist()), reverse=True):
        covered = [np.mean(region >= threshold) for region in regions]
        curve.append((np.mean(normal >= threshold), np.mean(covered)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if x0 < limit < x1:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def blobs(seed, shape=(3, 12, 14), cut=0.6):
    """Random masks of smooth blobs, the first image being free of defects."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, (0, 1, 1))
    mask = smooth > cut * smooth.std()
    mask[0] = False
    return mask


def scores_for(mask, seed, dtype=np.float32):
    noise = np.random.default_rng(seed).normal(size=mask.shape)
    return (noise + 1.5 * mask).astype(dtype)


def holes_and_diagonals():
    """A ring with a pixel of its own inside the hole, and squares that touch at a corner."""
    mask = np.zeros((2, 12, 12), bool)
    mask[0, 1:8, 1:8] = True
    mask[0, 2:7, 2:7] = False
    mask[0, 4, 4] = True
    mask[1, 1:4, 1:4] = mask[1, 4:7, 4:7] = True
    mask[1, 10, 0] = True
    return mask


def of_different_sizes(dtype=np.float32):
    masks = [*blobs(22, (2, 9, 14)), *blobs(23, (3, 13, 8))]
    return masks, [scores_for(mask, seed, dtype) for seed, mask in enumerate(masks)]


CASES = {
    "blobs": (blobs(0), scores_for(blobs(0), 1)),
    "single image": (blobs(2)[1:2], scores_for(blobs(2)[1:2], 3)),
    "many ties": (blobs(4), np.round(scores_for(blobs(4), 5))),
    "constant": (blobs(6), np.full((3, 12, 14), 0.25, np.float32)),
    "holes and diagonals": (holes_and_diagonals(), scores_for(holes_and_diagonals(), 7)),
    "wrong way round": (blobs(8), -scores_for(blobs(8), 9)),
    "float64 closer than float32": (blobs(10), 1 + 1e-9 * scores_for(blobs(10), 11, np.float64)),
    "different sizes": of_different_sizes(),
    "different sizes in float64": of_different_sizes(np.float64),
    "different sizes and types": (
        of_different_sizes()[0],
        [*of_different_sizes()[1][:4], of_different_sizes(np.float64)[1][4]],
    ),
    "zeros of both signs": (blobs(12), np.where(blobs(13), np.float32(0), np.float32(-0.0))),
}


@pytest.fixture(params=CASES, name="case")
def _case(request):
    return CASES[request.param]


@pytest.fixture(params=[5, aupro.CHUNK])
def _chunk(request, monkeypatch):
    """Pieces of a few pixels cut through ties; results must not notice."""
    monkeypatch.setattr(aupro, "CHUNK", request.param)


@pytest.mark.usefixtures("_chunk")
def test_pixel_metrics_equal_the_slow_ones(case):
    mask, score = case
    found = metrics.pixel_metrics(mask, score)
    truth, values = flat(mask), flat(score)
    precision, recall, _ = precision_recall_curve(truth, values)
    best_f1 = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))
    expected = {
        "pixel_auroc": roc_auc_score(truth, values),
        "pixel_ap": average_precision_score(truth, values),
        "pixel_f1_max": best_f1,
        "aupro_0.30": slow_aupro(mask, score, 0.30),
        "aupro_0.05": slow_aupro(mask, score, 0.05),
    }
    assert found == pytest.approx(expected, abs=1e-9, rel=0)


def test_golden():
    with np.load(GOLDEN) as golden:
        stored = {name: golden[name] for name in golden.files}
    found = metrics.evaluate(
        stored["image_label"], stored["image_score"], stored["mask"], stored["score"]
    )
    for name in ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_f1_max"):
        assert found[name] == pytest.approx(float(stored[name]), abs=1e-9)
    assert found["aupro_0.30"] == pytest.approx(float(stored["aupro_exact_030"]), abs=1e-9)
    assert found["aupro_0.05"] == pytest.approx(float(stored["aupro_exact_005"]), abs=1e-9)
    estimate = float(stored["aupro_cflow_1000_thresholds"])  # the loop comes near, not closer
    assert 0 < abs(found["aupro_0.30"] - estimate) < 2e-3


def test_perfect_map_scores_one():
    mask = blobs(14)
    found = metrics.evaluate(mask.any((1, 2)), mask.any((1, 2)), mask, mask.astype(np.float32))
    assert found == pytest.approx(dict.fromkeys(metrics.METRICS, 1.0), abs=1e-12)
    assert max(found.values()) <= 1


def test_squares_that_touch_at_a_corner_are_one_region():
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 1:3, 1:3] = mask[0, 3:5, 3:5] = True
    score = np.zeros(mask.shape, np.float32)
    score[0, 1:3, 1:3] = 1  # half of the only region, then everything at once
    assert metrics.pixel_metrics(mask, score)["aupro_0.30"] == pytest.approx(0.5 + 0.5 * 0.15)


def test_a_small_region_weighs_as_much_as_a_large_one():
    mask = np.zeros((1, 20, 20), bool)
    mask[0, :10, :10] = True
    mask[0, 15, 15] = True
    score = np.zeros(mask.shape, np.float32)
    score[0, 15, 15] = 1
    assert metrics.pixel_metrics(mask, score)["aupro_0.05"] == pytest.approx(0.5 + 0.5 * 0.025)


def test_a_region_weighs_alike_in_a_large_and_in_a_small_image():
    masks = [np.zeros((20, 30), bool), np.zeros((4, 5), bool)]
    masks[0][:10, :10] = masks[1][0, 0] = True  # 100 pixels and 1
    maps = [np.zeros(mask.shape, np.float32) for mask in masks]
    maps[1][0, 0] = 1  # the small one is found first, then everything at once
    found = metrics.pixel_metrics(masks, maps)
    assert found["aupro_0.05"] == pytest.approx(0.5 + 0.5 * 0.025)
    assert found["pixel_f1_max"] == pytest.approx(2 * 101 / (620 + 101))
    assert found["pixel_ap"] == pytest.approx(1 / 101 + 100 / 101 * 101 / 620)


def test_a_list_of_equal_sizes_is_an_array():
    mask = blobs(24)
    label, score, other = mask.any((1, 2)), scores_for(mask, 25), scores_for(mask, 26)
    found = metrics.evaluate(label, label, list(mask), list(score), list(other))
    assert found == metrics.evaluate(label, label, mask, score, other)


def test_overlap_maps_replace_only_aupro():
    mask = blobs(15)
    label, good, other = mask.any((1, 2)), scores_for(mask, 16), scores_for(mask, 17)
    found = metrics.evaluate(label, label, mask, good, overlap=other)
    assert found["aupro_0.30"] == metrics.pixel_metrics(mask, other)["aupro_0.30"]
    assert found["pixel_ap"] == metrics.pixel_metrics(mask, good)["pixel_ap"]


def test_curve_ends_where_it_must_and_keeps_the_area():
    mask = blobs(18, (4, 60, 60))
    score = scores_for(mask, 19)
    found, curve = metrics.pixel_analysis(mask, score)
    assert curve is not None
    for rates in curve:
        assert (rates[0], rates[-1]) == pytest.approx((0, 1), abs=1e-12)
        assert np.all(np.diff(rates) >= 0)
    assert len(curve.overlap) < 6 * metrics.DRAWN_STEPS
    area = np.trapezoid(curve.true_rate, curve.false_rate)
    assert area == pytest.approx(found["pixel_auroc"], abs=2e-3)


@pytest.mark.parametrize(
    ("labels", "masks", "reason", "names"),
    [
        ([0, 0], np.zeros((2, 4, 4), bool), "no anomalous image", metrics.IMAGE_METRICS),
        ([1, 1], np.ones((2, 4, 4), bool), "no good image", metrics.IMAGE_METRICS),
        ([0, 1], None, "no masks", metrics.PIXEL_METRICS),
        ([0, 1], np.zeros((2, 4, 4), bool), "marks a defect", metrics.PIXEL_METRICS),
        ([1, 1], np.ones((2, 4, 4), bool), "no pixel free", metrics.PIXEL_METRICS),
    ],
)
def test_undefined_metrics_are_nan_and_say_why(labels, masks, reason, names):
    scores = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    found = metrics.evaluate(np.array(labels), scores.max((1, 2)), masks, scores)
    reasons = metrics.undefined(np.array(labels), masks)
    assert metrics.undefined(np.array(labels), None if masks is None else [*masks]) == reasons
    assert set(found) == set(metrics.METRICS)
    assert {name for name, value in found.items() if np.isnan(value)} == set(reasons)
    assert all(reason in reasons[name] for name in names)


def _with_nan(shape, index):
    score = np.zeros(shape, np.float32)
    score[index] = np.nan
    return score


BAD_INPUT = {
    "image 1 ": ([0, 1], _with_nan(2, 1), np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4))),
    "image 0 ": ([0, 1], [0, 1], np.zeros((2, 4, 4), bool), _with_nan((2, 4, 4), (0, 3, 3))),
    "one label": ([0, 1, 1], [0, 1], np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4))),
    "labels hold": ([0, 2], [0, 1], np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4))),
    "image 1 of .* mask .*4, 4.* map .*5, 4.* differ": (
        [0, 1],
        [0, 1],
        [np.zeros((4, 4), bool)] * 2,
        [np.zeros((4, 4)), np.zeros((5, 4))],
    ),
    "2 masks but 1 anomaly": ([0, 1], [0, 1], [np.zeros((4, 4), bool)] * 2, np.zeros((1, 4, 4))),
    "differ in shape": ([0, 1], [0, 1], np.zeros((2, 4, 4), bool), np.zeros((2, 4, 5))),
    "uint8": ([0, 1], [0, 1], np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4))),
    "3 masks": ([0, 1], [0, 1], np.zeros((3, 4, 4), bool), np.zeros((2, 4, 4))),
    "labelled good": ([0, 1], [0, 1], np.ones((2, 4, 4), bool), np.zeros((2, 4, 4))),
}


@pytest.mark.parametrize("culprit", BAD_INPUT)
def test_bad_input_is_named_in_one_line(culprit):
    labels, scores, masks, maps = BAD_INPUT[culprit]
    with pytest.raises(UserError, match=culprit) as caught:
        metrics.evaluate(np.array(labels), np.array(scores), masks, maps)
    assert "\n" not in str(caught.value)
