"""Test images of unknown label: judged and counted, but part of no metric."""

import numpy as np
import pytest
from PIL import Image

from flowad_jax.evaluation import metrics
from flowad_jax.report import pictures
from flowad_jax.report.scored_images import ScoredImages
from flowad_jax.training import summary
from flowad_jax.training.loop import train
from flowad_jax.types import Scores
from tests.conftest import write_image
from tests.training.test_layouts import tiny

UNKNOWN = ("odd_0", "odd_1")
ROWS = [
    *[f"train_{i}.png,train,good," for i in range(5)],
    *[f"validation_{i}.png,validation,good," for i in range(3)],
    *[f"good_{i}.png,test,good," for i in range(3)],
    *[f"spot_{i}.png,test,spot,mask.png" for i in range(2)],
    *[f"{name}.png,test,unknown," for name in UNKNOWN],
]


@pytest.mark.whole
def test_a_table_with_unknown_labels_trains_to_the_same_metrics(tmp_path):
    """As one without these rows."""
    for seed, row in enumerate(ROWS):
        name = row.partition(",")[0]
        write_image(tmp_path / name, seed, defect=name.startswith(("spot", "odd_1")))
    mask = np.zeros((40, 36), np.uint8)
    mask[10:20, 8:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    found = {}
    for table, rows, drawn in (
        ("every", [ROWS[-1], *ROWS[:-1]], 1),
        ("known", [row for row in ROWS if not row.startswith(UNKNOWN)], 0),
    ):
        (tmp_path / f"{table}.csv").write_text("\n".join(["image,split,label,mask", *rows]))
        config = tiny("cflow", "csv", tmp_path, "")
        config.data.options.table = f"{table}.csv"
        config.train.epochs, config.eval.false_alarm_rate = 1, 0.3
        config.eval.mask_size = "native"
        config.eval.pictures_per_kind, config.eval.report_images = drawn, 20 * drawn
        found[table] = train(config, tmp_path / table)
    every, known = found["every"], found["known"]
    assert every["columns"]["last"] == pytest.approx(known["columns"]["last"], abs=1e-9)
    assert set(every["columns"]["last"]) == set(metrics.METRICS)
    assert np.isfinite(list(every["columns"]["last"].values())).all()
    counts = every["data"]["test"]
    assert (counts["images"], counts["good"], counts["anomalous"]) == (7, 3, 2)
    assert counts["kinds"] == {"good": 3, "spot": 2, "unknown": 2}
    decided, others = dict(every["thresholds"]["test"]), known["thresholds"]["test"]
    assert "of 2 whose label is unknown" in summary.headline(every)
    assert decided.pop("unknown") == 2
    assert 0 <= decided.pop("unknown_flagged") <= 2
    assert decided == others
    assert any("unknown" in name for name in every["pictures"])
    page = (tmp_path / "every" / "report.html").read_text()
    assert page.count('data-outcome="unknown"') == 2


def test_metrics_leave_unknown_images_out():
    rng = np.random.default_rng(0)
    labels = np.array([0, -1, 1, 0, 1, -1])
    scores, maps = rng.random(6), rng.random((6, 8, 8))
    masks = np.zeros((6, 8, 8), bool)
    masks[[2, 4], 1:4, 2:6] = True
    masks[1] = True  # whatever is marked there
    rows = [0, 2, 3, 4]
    right = metrics.evaluate(labels[rows], scores[rows], masks[rows], maps[rows])
    assert metrics.evaluate(labels, scores, masks, maps) == right
    assert metrics.evaluate(labels, scores, list(masks), list(maps), maps) == right
    assert metrics.undefined(labels, masks) == {}
    only = metrics.undefined(np.array([0, -1]), masks[[0, 1]])
    assert only["image_auroc"] == "the test set has no anomalous image"
    assert only["pixel_auroc"] == "no mask of the test set marks a defect"


def test_a_decision_on_an_unknown_image_is_neither_right_nor_wrong(tmp_path):
    class Records:
        labels, kinds = np.array([-1, 0, 1, -1]), ["unknown", "good", "dent", "unknown"]

    scores = Scores(np.array([3.0, 1.0, 2.0, 0.0]), np.zeros((4, 2, 2)))
    findings = ScoredImages(Records, scores, None, None, 1.5)
    decided = [findings.decision(index) for index in range(4)]
    assert decided[0] == ("alarm", "unknown")
    assert decided[3] == ("no alarm", "unknown")
    assert [one[0] for one in decided[1:3]] == ["passed", "detected"]
    assert list(findings.groups()) == [(0, "good"), (1, "dent"), (-1, "unknown")]
    assert pictures._meaning(0, Records.labels, scores.image).endswith("above 1 of 1 good")
    pictures.save_histogram(tmp_path / "h.png", Records.labels, Records.kinds, scores.image)
    assert (tmp_path / "h.png").stat().st_size > 0
