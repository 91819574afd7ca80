"""Learning curves, and measured false alarms against those asked for."""

import numpy as np
import pytest

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
