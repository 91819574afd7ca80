"""Learning curves, and measured false alarms against those asked for."""

from datetime import datetime

import numpy as np
import pytest
from matplotlib.dates import date2num

from flowad_jax.report import history

ROWS = [
    {"kind": "train", "epoch": 1, "loss": 3.0},
    {"kind": "train", "epoch": 2, "loss": 2.0},
    {"kind": "eval", "epoch": 2, "image_auroc": 0.9, "holdout_loss": 2.5},
    {"kind": "train", "epoch": 3, "loss": 1.5},
    {"kind": "eval", "epoch": 3, "image_auroc": 0.95, "pixel_auroc": 0.97, "holdout_loss": 2.0},
]


def drawn(figure):
    (axes,) = figure.axes
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_losses_and_metrics_are_drawn_over_their_epochs():
    assert drawn(history.losses(ROWS)) == {
        "training": [[1, 3], [2, 2], [3, 1.5]],
        "held-out images": [[2, 2.5], [3, 2]],
    }
    assert drawn(history.metrics(ROWS)) == {
        "image AUROC": [[2, 0.9], [3, 0.95]],
        "pixel AUROC": [[3, 0.97]],
    }


@pytest.mark.parametrize("rows", [[], ROWS[:1], [ROWS[0], ROWS[2]]])
def test_a_single_epoch_is_no_curve(rows):
    assert history.losses(rows) is None
    assert history.metrics(rows) is None


def test_measured_false_alarms_are_the_share_of_small_p_values():
    p_values = np.array([0.1, 0.2, 0.2, 0.6, 1.0])
    found = drawn(history.false_alarms(p_values, 0.05))
    measured = dict(found["of 5 good test images"])
    assert measured[0.2] == pytest.approx(0.6)
    assert measured[0.05] == 0
    assert found["asked for"] == [[0.05, 0], [0.05, 1]]
    assert "asked for" not in drawn(history.false_alarms(p_values, None))
    assert history.false_alarms(p_values[:4], 0.05) is None


def test_scores_stand_at_their_times():
    times = [datetime(2026, 2, day) for day in (24, 25, 26)]
    scores, labels = np.array([1.0, 2.0, 3.0]), np.array([0, 1, 0])
    (axes,) = history.scores_over_time(times, scores, labels, 2.5).axes
    drawn_at = {c.get_label(): c.get_offsets().data.tolist() for c in axes.collections}
    days = [date2num(time) for time in times]
    assert drawn_at == {
        "good": [[days[0], 1.0], [days[2], 3.0]],
        "anomalous": [[days[1], 2.0]],
    }
    assert history.scores_over_time(None, scores, labels, None) is None
    assert history.scores_over_time([times[0]] * 3, scores, labels, None) is None
