"""Test images of unknown label: judged and counted, but part of no metric."""

import numpy as np
import pytest
from PIL import Image

from flowad_jax.evaluation import metrics, pictures
from flowad_jax.evaluation.report_findings import Findings
from flowad_jax.training import summary
from flowad_jax.training.loop import train
from flowad_jax.types import Scores
from tests.conftest import write_image
from tests.training.test_layouts import tiny

ROWS = [
    *[(f"train_{i}.png", "train", "good", "") for i in range(5)],
    *[(f"validation_{i}.png", "validation", "good", "") for i in range(3)],
    *[(f"good_{i}.png", "test", "good", "") for i in range(3)],
    *[(f"spot_{i}.png", "test", "spot", "mask.png") for i in range(2)],
]
UNKNOWN = [("odd_0.png", "test", "unknown", ""), ("odd_1.png", "test", "unknown", "")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images beside a table with two rows of unknown label, and one without these rows."""
    folder = tmp_path_factory.mktemp("table")
    rows = [UNKNOWN[0], *ROWS, UNKNOWN[1]]
    for seed, (name, *_) in enumerate(rows):
        write_image(folder / name, seed, defect=name.startswith(("spot", "odd_1")))
    mask = np.zeros((40, 36), np.uint8)
    mask[10:20, 8:20] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    for table, lines in (("dataset.csv", rows), ("known.csv", ROWS)):
        text = "\n".join(",".join(line) for line in [("image", "split", "label", "mask"), *lines])
        (folder / table).write_text(text)
    return folder


def run(root, table, path, drawn):
    config = tiny("cflow", "csv", root, "")
    config.data.options.table = table
    config.train.epochs, config.eval.false_alarm_rate, config.eval.mask_size = 1, 0.3, "native"
    config.eval.pictures_per_kind, config.eval.report_images = drawn, 20 * drawn
    return train(config, path)


def test_a_table_with_unknown_labels_trains_to_the_same_metrics(root, tmp_path):
    every = run(root, "dataset.csv", tmp_path / "every", drawn=1)
    known = run(root, "known.csv", tmp_path / "known", drawn=0)
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
    findings = Findings(Records, scores, None, None, 1.5)
    decided = [findings.decision(index) for index in range(4)]
    assert decided[0] == ("alarm", "unknown")
    assert decided[3] == ("no alarm", "unknown")
    assert [one[0] for one in decided[1:3]] == ["passed", "detected"]
    assert list(findings.groups()) == [(0, "good"), (1, "dent"), (-1, "unknown")]
    assert pictures._meaning(0, Records.labels, scores.image).endswith("above 1 of 1 good")
    pictures.save_histogram(tmp_path / "h.png", Records.labels, Records.kinds, scores.image)
    assert (tmp_path / "h.png").stat().st_size > 0
