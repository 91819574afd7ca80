"""What is decided, what is promised, and what is only estimated, with the words for it."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from flowad_jax.errors import UserError
from flowad_jax.evaluation import conformal, metrics, tail
from flowad_jax.evaluation.decisions import Decisions

NINETEEN = np.arange(19.0)


@pytest.mark.parametrize(
    ("count", "rate"), [(2, 0.01), (5, 0.01), (5, 0.1), (12, 0.02), (60, 0.01)]
)
def test_the_tail_of_exponential_scores_is_met(count, rate):
    """Exactly, over draws, but for the floor at the highest score, which only lowers it."""
    draws = np.random.default_rng(0).exponential(size=(6000, count))
    alarms = [stats.expon.sf(tail.threshold(draw, rate)) for draw in draws]
    error = 4 * np.std(alarms) / math.sqrt(len(alarms))
    assert np.mean(alarms) < rate + error
    assert np.mean(alarms) > 0.7 * rate - error
    if rate < 0.5 / (count + 1):
        assert np.mean(alarms) == pytest.approx(rate, abs=error + 0.02 * rate)


@pytest.mark.parametrize("law", [stats.norm(), stats.uniform(), stats.gamma(2), stats.beta(8, 2)])
def test_the_tail_of_lighter_scores_is_not_exceeded(law):
    draws = law.rvs((2000, 10), random_state=1)
    assert np.mean([law.sf(tail.threshold(draw, 0.01)) for draw in draws]) < 0.01


def test_the_tail_is_never_below_the_highest_score():
    normal = np.array([0.0, 0.0, 0.0, 9.0])
    assert tail.threshold(normal, 0.19) >= 9.0
    assert tail.threshold(np.full(5, 3.0), 0.01) == 3.0
    assert tail.threshold(np.ones(1), 0.01) == math.inf
    shifted = 7 + 100 * tail.threshold(NINETEEN, 0.001)
    assert tail.threshold(7 + 100 * NINETEEN, 0.001) == pytest.approx(shifted)


def folds(*sizes):
    rng = np.random.default_rng(0)
    return [rng.gamma(2, 1, size) for size in sizes]


@pytest.mark.parametrize(
    ("image", "rate", "options", "expected", "words"),
    [
        ([NINETEEN], 0.1, {}, ("promise", 0.1, 0.1), "at most 10 % false alarms: a promise by 19"),
        ([NINETEEN], 0.01, {}, ("estimate", 0.05, 0.05), "an estimate from the tail of 19"),
        ([NINETEEN], 0.1, {"threshold": 3.5}, ("threshold", 0.1, None), "3.5, as given"),
        ([np.zeros(0)], 0.1, {"threshold": 3.5}, ("threshold", 1.0, None), "3.5, as given"),
        (
            [NINETEEN],
            0.1,
            {"calibration": "cross_fast"},
            ("estimate", 0.1, None),
            "an estimate, not a promise, from 19 images",
        ),
        (
            folds(9, 10),
            0.1,
            {"calibration": "cross"},
            ("promise", 0.1, 0.2 + 1.8 / 21),
            "guaranteed are at most 28.6 %",
        ),
        (
            folds(9, 10),
            0.01,
            {"calibration": "cross"},
            ("estimate", 0.05, 0.1 + 1.9 / 21),
            "an estimate from the tail of 19",
        ),
    ],
)
def test_what_a_card_says(image, rate, options, expected, words):
    decisions = Decisions(image, image, rate, **options)
    card = decisions.card
    assert (card["decided_by"], card["level"]) == expected[:2]
    assert card["promised"] == pytest.approx(expected[2])
    assert words in card["meaning"]
    assert card["images"] == sum(map(len, image))
    assert decisions.reason is None
    scores = np.linspace(-1, 60, 500)
    p_values = decisions.p_values(np.tile(scores, (len(image), 1)))
    flagged = decisions.anomalous(scores, p_values)
    assert 0 < flagged.sum() < 500
    assert np.all(np.diff(flagged.astype(int)) >= 0)
    if card["image"] is not None:  # where there is one score, it says the same
        np.testing.assert_array_equal(flagged, scores > card["image"])
    if card["decided_by"] == "promise":
        np.testing.assert_array_equal(flagged, p_values <= rate)


def test_a_single_image_allows_nothing_rare():
    decisions = Decisions([np.ones(1)], [np.ones(1)], 0.1)
    assert decisions.anomalous(np.array([9.0]), np.array([0.5])) is None
    assert "a single held-out image allows no estimate of 10 %" in decisions.reason
    assert Decisions([np.ones(1)], [np.ones(1)], 0.5).anomalous([9.0], [0.5]) == [True]
    assert Decisions([np.zeros(0)], [np.zeros(0)], 0.5).card == {}


@pytest.mark.parametrize(("rate", "calibration"), [(0.0, "split"), (0.1, "crossed")])
def test_what_is_no_rate_or_no_calibration(rate, calibration):
    with pytest.raises(UserError, match=r"eval\."):
        Decisions([NINETEEN], [NINETEEN], rate, calibration)


def test_best_f1_is_that_of_all_thresholds():
    rng = np.random.default_rng(0)
    for _ in range(50):
        label, score = rng.integers(-1, 2, 30), rng.integers(0, 12, 30).astype(float)
        label[:2] = 0, 1
        found, threshold = metrics.best_f1(label, score)
        known = label >= 0

        def f1(limit, true=label[known], flags=score[known]):
            hits = np.sum((flags > limit) & (true == 1))
            return 2 * hits / (np.sum(flags > limit) + np.sum(true))

        assert found == pytest.approx(max(f1(limit) for limit in np.arange(-1, 12)))
        assert f1(threshold) == pytest.approx(found)


def test_the_page_says_how_many_images_a_rate_needs():
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "thresholds.md").read_text()
    rows = re.findall(r"^\| ([\d.]+) % \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert len(rows) == 5
    for rate, *counts in rows:
        least = conformal.needed(float(rate) / 100)
        assert [int(count) for count in counts] == [least, 10 * least, 3 * least]
