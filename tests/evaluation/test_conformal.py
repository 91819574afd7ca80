"""Conformal decisions: exact validity by enumeration, ties, and what few images can promise."""

import math

import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.evaluation import conformal

RATES = (0.01, 0.05, 0.1, 0.2, 0.25, 0.5, 0.9)


def test_worked_example():
    normal = np.array([3.0, 1.0, 2.0, 4.0])
    scores = np.array([0.0, 2.0, 2.5, 4.0, 9.0])
    np.testing.assert_allclose(conformal.p_values(scores, normal), [1, 0.8, 0.6, 0.4, 0.2])
    assert conformal.threshold(normal, 0.2) == pytest.approx(4.0, rel=2e-5)
    assert conformal.threshold(normal, 0.4) == pytest.approx(3.0, rel=2e-5)
    assert conformal.threshold(normal, 0.19) == math.inf


@pytest.mark.parametrize("values", [range(9), [1, 1, 2, 2, 2, 3], [5] * 4, [1.0, 2.0]])
@pytest.mark.parametrize("rate", RATES)
def test_each_image_as_the_new_one(values, rate):
    """Exchangeable images: any is as likely to be the new one, so the rate is a count."""
    values = np.array(values, float)
    alarms = []
    for new in range(len(values)):
        normal = np.delete(values, new)
        p_value = conformal.p_values(values[new : new + 1], normal)[0]
        alarms.append(p_value <= rate)
        assert alarms[-1] == (values[new] > conformal.threshold(normal, rate))
    assert np.mean(alarms) <= rate
    if len(set(values)) == len(values):  # without ties nothing is given away
        assert np.mean(alarms) == math.floor(len(values) * rate) / len(values)


@pytest.mark.parametrize("scale", [1e-3, 1.0, -700.0])
def test_equal_images_are_equal_whatever_their_last_digits(scale):
    """As another batch size makes them; before, 16 such images were anomalous one and all."""
    rng = np.random.default_rng(0)
    score = scale * 1.54340801575812
    for shift in (1.54340812265658 / 1.54340801575812 - 1, 5e-7, -5e-7):
        noise = 1 + 1e-7 * rng.uniform(-1, 1, (2, 16))
        normal, new = score * noise[0], score * (1 + shift) * noise[1]
        np.testing.assert_array_equal(conformal.p_values(new, normal), 1.0)
        for rate in (0.06, 0.2, 0.9):
            assert not np.any(new > conformal.threshold(normal, rate))
            float32 = new.astype(np.float32)  # as maps are compared with the threshold of pixels
            assert not np.any(float32 > conformal.threshold(normal, rate))
    higher = np.array([score + 1e-4 * abs(score)])
    assert conformal.p_values(higher, np.full(16, score)) == [1 / 17]


def test_ties_keep_the_threshold_and_the_p_values_together():
    """Also where a score lies at the very end of what counts as equal."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        normal = rng.choice([-1.0, 1.0]) * rng.gamma(2, 1, 9).round(2)
        near = normal * (1 + rng.choice([0, 1, -1, 3]) * conformal.TIE * rng.uniform(0, 1, 9))
        ends = normal + conformal.TIE * np.abs(normal).max()
        scores = np.concatenate([near, ends, np.nextafter(ends, 99), rng.normal(0, 3, 9)])
        p_values = conformal.p_values(scores, normal)
        at_least = [np.sum(normal >= score) for score in scores]
        assert np.all(p_values >= (1 + np.array(at_least)) / 10)  # still valid
        for rate in RATES:
            above = scores > conformal.threshold(normal, rate)
            np.testing.assert_array_equal(p_values <= rate, above)


def test_no_held_out_image_promises_nothing():
    assert conformal.p_values(np.array([7.0]), np.zeros(0)) == [1.0]
    assert conformal.threshold(np.zeros(0), 0.5) == math.inf


@pytest.mark.parametrize("rate", [0.0, 1.0, -1, 2, math.nan])
def test_a_rate_that_is_none(rate):
    with pytest.raises(UserError, match=r"false_alarm_rate=.*lies between 0 and 1"):
        conformal.threshold(np.ones(3), rate)


def test_the_interval_holds_over_draws():
    rng = np.random.default_rng(0)
    count, rate = 99, 0.1
    low, high = conformal.true_rate_interval(count, rate)
    thresholds = [conformal.threshold(rng.uniform(size=count), rate) for _ in range(4000)]
    true_rates = 1 - np.array(thresholds)  # of new images that are uniform, too
    inside = np.mean((low <= true_rates) & (true_rates <= high))
    assert inside == pytest.approx(0.9, abs=0.02)  # four standard errors
    assert np.mean(true_rates) == pytest.approx(0.1, abs=0.002)
    assert conformal.true_rate_interval(count, 0.001) == (0.0, 0.0)


def test_the_binomial_interval_is_the_exact_one():
    # 0 of n: 1 - (alpha / 2) ** (1 / n)
    assert conformal.binomial_interval(0, 20) == pytest.approx((0, 1 - 0.025 ** (1 / 20)))
    low, high = conformal.binomial_interval(5, 50)
    assert low < 0.1 < high


@pytest.mark.parametrize("sizes", [(9,), (5, 5), (3, 4, 2)])
def test_cross_p_values_count_every_fold(sizes):
    """Against a plain count; a rank that is off by one, or a fold left out, differs."""
    rng = np.random.default_rng(2)
    normal = [rng.integers(0, 6, size).astype(float) for size in sizes]
    scores = rng.integers(0, 7, (len(sizes), 50)).astype(float)
    found = conformal.cross_p_values(scores, normal)
    for image, p_value in enumerate(found):
        high = sum(np.sum(own >= row[image]) for own, row in zip(normal, scores, strict=True))
        assert p_value == pytest.approx((1 + high) / (sum(sizes) + 1))
    if len(sizes) == 1:
        np.testing.assert_array_equal(found, conformal.p_values(scores[0], normal[0]))


def test_cross_p_values_of_normal_images():
    """A detector is the mean of what it learned from, so that folds depend on each other."""
    rng, count, folds, trials = np.random.default_rng(3), 20, 5, 4000
    images = rng.normal(size=(trials, count + 1))
    p_values = np.zeros(trials)
    for row, (*known, new) in enumerate(images):
        parts = np.array(known).reshape(folds, -1)
        means = [np.delete(parts, fold, 0).mean() for fold in range(folds)]
        normal = [np.abs(part - mean) for part, mean in zip(parts, means, strict=True)]
        scores = np.abs(new - np.array(means))[:, None]
        p_values[row] = conformal.cross_p_values(scores, normal)[0]
    for rate in (1 / 21, 0.1, 0.2, 0.5):
        measured, bound = np.mean(p_values <= rate), conformal.cross_bound(count, folds, rate)
        possible = math.floor(21 * rate + 1e-9) / 21
        assert measured == pytest.approx(possible, abs=0.02)  # near it, and below the bound
        assert measured <= bound
    assert conformal.cross_bound(count, folds, 0.04) == np.mean(p_values < 1 / 21) == 0


def test_the_bound_of_cross_p_values():
    assert conformal.cross_bound(99, 1, 0.1) == pytest.approx(0.2)  # 2 a: of one fold, too much
    assert conformal.cross_bound(95, 5, 0.25) == pytest.approx(0.5 + 2 * 0.75 * 4 / 100)
    assert conformal.cross_bound(10, 10, 0.9) == 1.0


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1 / 3, 1 / 7])
def test_images_that_a_rate_needs(rate):
    least = conformal.needed(rate)
    assert conformal.threshold(np.arange(float(least)), rate) < math.inf
    assert conformal.threshold(np.arange(float(least - 1)), rate) == math.inf
