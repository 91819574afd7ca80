"""The drift statistic keeps its promise on exchangeable streams and finds what changes."""

import json

import numpy as np
import pytest

from flowad_jax.flowad_runtime import drift
from flowad_jax.flowad_runtime.drift import Drift
from flowad_jax.flowad_runtime.errors import UserError

NORMAL = np.random.default_rng(0).normal(size=40)


def stream(seed, count=300, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, count)


def follow(scores, normal=(NORMAL,), **options):
    found = Drift(normal, **options)
    for score in scores:
        found.add([float(score)] * len(normal))
    return found


@pytest.mark.parametrize("parts", [1, 3])
def test_at_most_a_share_alpha_of_exchangeable_streams_ever_alarms(parts):
    """Held-out images and stream are drawn anew, as the promise is about both."""
    alarms = 0
    for seed in range(300):
        values = np.random.default_rng(seed).normal(size=(parts, 30 + 150))
        found = Drift(values[:, :30], alpha=0.1)
        for scores in values[:, 30:].T:
            found.add(scores)
        alarms += found.alarm is not None
    assert 0 < alarms <= 30 + 2 * 5.2 if parts == 1 else alarms <= 30 + 2 * 5.2


def test_ranks_are_uniform_and_do_not_depend_on_each_other(monkeypatch):
    """Seen through bets that record them: ties, too, are broken evenly."""
    found = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        one = Drift([rng.integers(0, 3, 9)])
        part = one._parts[0]
        part._rng = rng
        monkeypatch.setattr(drift, "BETS", (1.0,))
        part._shares, part._log = [1.0], 0.0
        before, row = 0.0, []
        for score in rng.integers(0, 3, 2):
            one.add([float(score)])
            row.append(np.exp(part._log - before) - 0.5)
            before = part._log
        found.append(row)
    ranks = np.array(found)
    assert np.abs(ranks.mean(axis=0) - 0.5).max() < 0.05
    assert np.abs(ranks.var(axis=0) - 1 / 12).max() < 0.02
    assert abs(np.corrcoef(ranks.T)[0, 1]) < 0.12


@pytest.mark.parametrize("shift", [1.5, -1.5])
def test_a_shift_is_found_and_the_alarm_stays(shift):
    scores = [*stream(1, 50), *stream(2, 200, shift)]
    found = follow(scores)
    assert 50 < found.alarm.number < 150
    before = found.alarm
    assert not any(found.add([x]) for x in stream(3, 300))
    assert found.alarm == before


def test_a_rare_defect_is_no_drift():
    scores = stream(4, 400)
    scores[::50] = 1e6
    assert follow(scores).alarm is None


def test_a_very_long_drift_does_not_overflow():
    found = follow(np.arange(4000.0))
    assert found.value == found.largest == pytest.approx(drift.LARGEST)
    json.dumps(found.record(), allow_nan=False)


def test_the_same_stream_gives_the_same_statistic_also_from_lines():
    scores = stream(5, 60, 1)
    lines = [{"path": f"{k}.png", "score": float(x), "p_value": 0.05} for k, x in enumerate(scores)]
    again = Drift([NORMAL])
    for line in [*lines[:30], {"path": "broken", "error": "x"}, {"path": "nan", "score": None}]:
        again.add_line(line)
    for line in lines[30:]:
        again.add_line(json.loads(json.dumps(line)))
    assert again.value == follow(scores).value
    assert again.images == 60
    assert again.alarm.name == f"{again.alarm.number - 1}.png"
    assert again.record()["last"] == {"low_share": 1.0, "brightness": None, "sharpness": None}


def test_what_cannot_be_watched_says_why():
    found = follow([1.0, 2.0], normal=([],))
    assert found.value is None
    assert found.describe() == f"drift: not watched, {drift.NO_NORMAL}"
    assert found.record()["reason"] == drift.NO_NORMAL
    for alpha in (0, 1, -1, np.nan):
        with pytest.raises(UserError, match="drift_alpha="):
            Drift([NORMAL], alpha)


def test_scores_that_are_no_numbers_are_not_bet_on():
    found = follow([np.nan, np.inf])
    assert (found.images, found.value) == (0, 1.0)


def test_the_sentence_of_an_alarm():
    found = Drift([NORMAL])
    for number in range(100):
        if found.add([10.0 + number], name=f"line 1\n{number}.png"):
            break
    text = found.describe()
    assert text.startswith(f"drift: ALARM at image {number + 1}, 'line 1\\n{number}.png': ")
    assert "\n" not in text


def test_brightness_and_sharpness():
    flat = np.full((8, 8, 3), 51, np.uint8)
    assert drift.look(flat) == (0.2, 0.0)
    edge = flat.copy()
    edge[:, 4:] = 255
    brightness, sharpness = drift.look(edge)
    assert brightness == pytest.approx(0.6)
    assert sharpness > 0.2
    assert drift.look(edge, (0, 0, 8, 4)) == (0.2, 0.0)  # what pads an image does not count
    assert drift.look(flat[:1, :1]) == (0.2, 0.0)
