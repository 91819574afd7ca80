"""AU-sPRO, AUPIMO and SegF1 against their definitions, one threshold at a time."""

import itertools
import math

import numpy as np
import pytest
from scipy import ndimage

from flowad_jax.errors import UserError
from flowad_jax.evaluation import metrics
from flowad_jax.evaluation.aupimo import aupimo, mean
from flowad_jax.evaluation.released_aupro import Form, released_aupro
from flowad_jax.evaluation.segmentation import seg_f1_parts
from flowad_jax.evaluation.spro import LIMITS, au_spro
from flowad_jax.types import Defect
from tests.evaluation.test_metrics import blobs, holes_and_diagonals, scores_for

SHAPES = ((9, 14), (13, 8), (9, 14), (1, 1), (6, 6))


def images(seed, levels=None):
    """Images of several sizes, the last two without a defect, with scores that may tie."""
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=shape), 1) for shape in SHAPES]
    masks = [one > 0.5 * one.std() if i < 3 else one > 1e9 for i, one in enumerate(smooth)]
    maps = [
        rng.normal(size=one.shape) + 1.2 * mask for one, mask in zip(smooth, masks, strict=True)
    ]
    if levels is not None:
        maps = [np.round(levels * values) / levels for values in maps]
    return masks, maps


def defects_of(masks, seed):
    """Regions of masks as defects that saturate differently, some of them sharing pixels."""
    rng, found = np.random.default_rng(seed), []
    for mask in masks:
        labelled, count = ndimage.label(mask)
        own = [labelled == number for number in range(1, count + 1)]
        if count > 1:
            own.append(own[0] | own[-1])
        kinds = [(0.3, True), (1.0, True), (4, False), (1000, False), (0.001, True)]
        found.append([Defect(one, *kinds[rng.integers(len(kinds))]) for one in own])
    return found


def slow_spro(defects, maps, limit):
    """By the definition: one threshold at a time, counting pixels."""
    free = [
        values[~np.any([d.mask for d in own], axis=0)] if own else values.ravel()
        for own, values in zip(defects, maps, strict=True)
    ]
    free = np.concatenate(free)
    curve = [(0.0, 0.0)]
    for threshold in sorted({float(v) for values in maps for v in values.ravel()}, reverse=True):
        overlaps = []
        for own, values in zip(defects, maps, strict=True):
            for mask, saturation, relative in own:
                area = mask.sum()
                enough = max(1, int(saturation * area) if relative else min(int(saturation), area))
                overlaps.append(min(np.sum(values[mask] >= threshold) / enough, 1))
        curve.append((np.mean(free >= threshold), np.mean(overlaps)))
    x, y = map(np.array, zip(*curve, strict=True))
    inside = x <= limit
    end = np.interp(limit, x[np.argmax(x >= limit) - 1 :], y[np.argmax(x >= limit) - 1 :])
    if x[inside][-1] == limit:
        end = y[inside][-1]
    return np.trapezoid([*y[inside], end], [*x[inside], limit]) / limit


@pytest.mark.parametrize("levels", [None, 20, 4, 1])
@pytest.mark.parametrize("seed", range(6))
def test_au_spro_is_its_definition(seed, levels):
    masks, maps = images(seed, levels)
    defects = defects_of(masks, seed)
    found = au_spro(defects, maps)
    assert list(found) == list(LIMITS)
    for limit, value in found.items():
        assert value == pytest.approx(slow_spro(defects, maps, limit), abs=1e-9), limit


def test_au_spro_without_saturation_is_aupro():
    masks, maps = blobs(0), scores_for(blobs(0), 1)
    structure = np.ones((3, 3))
    defects = []
    for mask in masks:
        labelled, count = ndimage.label(mask, structure=structure)
        defects.append([Defect(labelled == number) for number in range(1, count + 1)])
    found, expected = au_spro(defects, maps), metrics.pixel_metrics(masks, maps)
    for limit in (0.05, 0.3):
        assert found[limit] == pytest.approx(expected[f"aupro_{limit:.2f}"], abs=1e-9)


def test_constant_and_perfect_maps():
    masks, maps = images(0)
    defects = defects_of(masks, 0)
    for value in au_spro(defects, [np.zeros_like(one) for one in maps]).values():
        assert 0 < value <= 0.5
    perfect = au_spro(defects, [mask.astype(float) for mask in masks])
    assert all(value == pytest.approx(1) for value in perfect.values())


def test_what_au_spro_refuses():
    mask, values = np.ones((2, 2), bool), np.zeros((2, 2))
    part = np.array([[True, False], [False, False]])
    for defects, maps, line in (
        ([[]], [values], "no defect"),
        ([[Defect(mask)]], [values], "every pixel"),
        ([[Defect(~mask)]], [values], "is empty"),
        ([[Defect(part)]], [values + math.nan], "not finite"),
        ([[Defect(part[:1])]], [values], "of the map's shape"),
        ([[Defect(part)]], [], "one of each"),
    ):
        with pytest.raises(UserError, match=line):
            au_spro(defects, maps)


def slow_aupimo(masks, maps, low, high):
    """The best recall at every rate, by trying every threshold, integrated piece by piece."""
    normal = [values for mask, values in zip(masks, maps, strict=True) if not mask.any()]
    levels = sorted({float(v) for values in maps for v in values.ravel()}, reverse=True)
    rates = np.array([np.mean([np.mean(v >= level) for v in normal]) for level in levels])
    areas = []
    for mask, values in zip(masks, maps, strict=True):
        if not mask.any():
            areas.append(math.nan)
            continue
        recalls = np.array([np.mean(values[mask] >= level) for level in levels])
        edges = np.unique(np.clip([low, *rates, high], low, high))
        total = 0.0
        for left, right in itertools.pairwise(edges):
            allowed = recalls[rates <= left * (1 + 1e-12)]
            total += (allowed.max() if allowed.size else 0.0) * math.log(right / left)
        areas.append(total / math.log(high / low))
    return areas


@pytest.mark.parametrize("bounds", [(0.01, 0.1), (1e-5, 1e-4), (0.2, 1.0)])
@pytest.mark.parametrize("levels", [None, 10, 1])
@pytest.mark.parametrize("seed", range(3))
def test_aupimo_is_its_definition(seed, levels, bounds):
    masks, maps = images(seed, levels)
    found = aupimo(masks, maps, bounds)
    np.testing.assert_allclose(found, slow_aupimo(masks, maps, *bounds), atol=1e-9)


def test_aupimo_of_constant_perfect_and_missing_maps():
    masks, maps = images(1)
    assert mean(aupimo(masks, [np.zeros_like(one) for one in maps])) == 0
    assert mean(aupimo(masks, [one.astype(float) for one in masks])) == pytest.approx(1)
    assert math.isnan(mean(aupimo([~one & one for one in masks], maps)))
    with pytest.raises(UserError, match="no normal image"):
        aupimo([one | True for one in masks], maps)
    with pytest.raises(UserError, match="0 < low < high"):
        aupimo(masks, maps, (0.1, 0.1))


@pytest.mark.parametrize("threshold", [-10.0, 0.3, 1.0, 10.0])
def test_seg_f1_is_that_of_all_pixels_together(threshold):
    from sklearn.metrics import f1_score

    masks, maps = images(2, 4)
    truth = np.concatenate([mask.ravel() for mask in masks])
    called = np.concatenate([values.ravel() for values in maps]) > threshold
    parts, wholes = seg_f1_parts(masks, maps, threshold)
    expected = f1_score(truth, called, zero_division=0)
    assert parts.sum() / wholes.sum() == pytest.approx(expected, abs=1e-12)
    assert parts[3:].tolist() == [0, 0]  # of normal images


def slow_released(masks, maps, thresholds, fills):
    """As the program does it, threshold by threshold."""
    maps, masks = np.array(maps), np.array(masks)
    high, low = maps.max(), maps.min()
    rates, overlaps = [], []
    for step in range(thresholds):
        called = maps > high - step * (high - low) / thresholds
        rates.append(np.sum(called & ~masks) / np.sum(~masks))
        found = []
        for mask, one in zip(masks, called, strict=True):
            labelled, count = ndimage.label(mask, np.ones((3, 3)))
            for number in range(1, count + 1):
                region = labelled == number
                inside = ndimage.binary_fill_holes(region) if fills else region
                found.append(np.sum(one & inside) / np.sum(region))
        overlaps.append(np.mean(found))
    rates, overlaps = np.array(rates), np.array(overlaps)
    kept = rates <= 0.3
    x = rates[kept] - rates[kept].min()
    return np.trapezoid(overlaps[kept], x / x.max())


@pytest.mark.parametrize("fills", [False, True])
@pytest.mark.parametrize("case", ["blobs", "holes", "ties"])
def test_released_aupro_is_what_the_programs_do(case, fills):
    masks = holes_and_diagonals() if case == "holes" else blobs(3)
    maps = scores_for(masks, 5)
    maps = np.round(4 * maps) / 4 if case == "ties" else maps
    found = released_aupro(masks, maps, Form(50, fills))
    assert found == pytest.approx(slow_released(masks, maps, 50, fills), abs=1e-9)


def test_released_aupro_counts_holes_as_found():
    """A ring that is found with its hole has an overlap above 1 there, and 1 in truth."""
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 5:15, 5:15] = True
    masks[0, 7:13, 7:13] = False
    maps = np.random.default_rng(0).uniform(0, 0.5, masks.shape)
    maps[0, 5:15, 5:15] += 1
    assert released_aupro(masks, maps, Form(1000, True)) > 1.3
    assert metrics.pixel_metrics(masks, maps)["aupro_0.30"] <= 1


def test_released_aupro_of_constant_maps_is_undefined():
    masks = blobs(0)
    assert math.isnan(released_aupro(masks, np.zeros(masks.shape), Form(1000, True)))
    assert math.isnan(released_aupro(masks & False, scores_for(masks, 1), Form(1000, True)))
