"""Normal images alone: training, calibration, report and decisions without a test set."""

import csv
import functools
import json
import re
import shutil
from pathlib import Path

import pytest

import flowad_jax
from flowad_jax.detector import splits
from flowad_jax.doctor.workdir import examine
from flowad_jax.errors import UserError
from flowad_jax.training import metrics_log, rescore, summary
from flowad_jax.training.loop import train
from tests.conftest import tiny_recipe, write_image


def flat(root, holdout=0.25, epochs=2):
    """A flat folder of twelve images, and the recipe for it."""
    for index in range(12):
        write_image(root / "photos" / f"{index}.{'png' if index % 2 else 'jpg'}", index)
    config = tiny_recipe(root / "photos", category=None)
    config.data.holdout, config.train.epochs = holdout, epochs
    config.eval.report_images, config.eval.false_alarm_rate = 5, 0.3
    return config


@pytest.mark.whole
def test_a_run_without_test_images(tmp_path, capsys):
    found = train(flat(tmp_path), tmp_path / "run")
    stored = json.loads((tmp_path / "run/results.json").read_text())
    assert stored["scored_images"] == "held-out"
    assert stored["data"]["test"]["images"] == 0
    assert stored["columns"]["last"] == stored["undefined"] == {}
    assert stored["thresholds"]["images"] == 3
    assert "test" not in stored["thresholds"]
    assert stored["pictures"] == ["images/histogram.png", "images/panels_00_false-alarms.png"]
    text = (tmp_path / "run/results.md").read_text()
    assert "No test images: no metrics." in text
    assert "AUROC" not in text
    page = (tmp_path / "run/report.html").read_text()
    assert "All 3 held-out images, highest score first." in page
    assert "No test images: no metrics." in page
    for absent in ("AUROC", "Kinds of defects", "Curves", "false alarm<", "nan", "Decision"):
        assert absent not in page
    lines = summary.headline(found).splitlines()
    assert lines[0] == "last epoch: no test images: no metrics"
    assert "threshold for at most 30" in lines[1]
    assert "3 held-out images" in lines[1]
    assert "nan" not in capsys.readouterr().out.lower()

    again = rescore.evaluate_workdir(tmp_path / "run")
    assert again["thresholds"] == found["thresholds"]
    detector = flowad_jax.load(tmp_path / "run")
    defect = tmp_path / "new.png"
    write_image(defect, 99, defect=True)
    kept, new = detector.predict([str(tmp_path / "photos/1.png"), str(defect)])
    assert new.score > kept.score
    assert new.anomalous
    assert not examine(str(tmp_path / "run")).problems

    (tmp_path / "photos/1.png").unlink()
    with pytest.raises(UserError, match=r"trained on other images: '1\.png' was removed"):
        rescore.evaluate_workdir(tmp_path / "run")


@pytest.mark.whole
def test_without_any_images_kept_apart_those_of_the_training_are_shown(tmp_path):
    found = train(flat(tmp_path, holdout=0.0, epochs=1), tmp_path / "run")
    assert found["scored_images"] == "training"
    assert found["thresholds"] == {}
    assert "12 training images" in (tmp_path / "run/report.html").read_text().replace("5 of ", "")


@pytest.mark.whole
def test_images_that_come_later(tiny_run, tmp_path):
    """They have a report of their own, and that of the run stays."""
    shutil.copytree(tiny_run[0] / "run", tmp_path / "run")
    stored = (tmp_path / "run/results.json").read_bytes()
    for index in range(3):
        write_image(tmp_path / "new/test/good" / f"{index}.png", 300 + index)
        write_image(tmp_path / "new/test/hole" / f"{index}.png", 400 + index, defect=True)
        write_image(tmp_path / "grüße/new" / f"{index}.png", 500 + index, defect=index > 1)
    evaluate = functools.partial(rescore.evaluate_workdir, tmp_path / "run")
    found = evaluate(data=str(tmp_path / "new"))
    assert found["columns"]["last"]["image_auroc"] == 1.0
    assert found["data"]["test"]["kinds"] == {"good": 3, "hole": 3}
    assert found["data"]["test_root"] == str(tmp_path / "new")
    assert set(found["columns"]) == {"last"}  # epochs are chosen by the run's own images
    again = evaluate(data=str(tmp_path / "grüße/new"))
    assert again["scored_images"] == "unlabelled"
    assert again["columns"]["last"] == {}
    assert again["thresholds"]["test"]["unknown"] == 3
    lines = summary.headline(again).splitlines()
    assert lines[0] == "last epoch: no labels: no metrics"
    assert lines[1].endswith("flags 1 of 3 whose label is unknown")

    assert (tmp_path / "run/results.json").read_bytes() == stored
    places = [tmp_path / "run/eval" / name for name in ("new", "new-2")]
    for place, one in zip(places, (found, again), strict=True):
        assert json.loads((place / "results.json").read_text())["data"] == one["data"]
        rows = list(csv.DictReader((place / "predictions.csv").read_text().splitlines()))
        flagged = one["thresholds"]["test"]
        assert len(rows) == one["data"]["test"]["images"]
        assert sum(row["anomalous"] == "True" for row in rows) == sum(
            flagged.get(key, 0) for key in ("false_alarms", "detected", "unknown_flagged")
        )
    evaluate(data=str(tmp_path / "new"), rate=0.5)
    assert sorted(p.name for p in (tmp_path / "run/eval").iterdir()) == ["new", "new-2"]
    with pytest.raises(UserError, match=r"12 of 12 images in .* were trained on"):
        evaluate(data=str(tiny_run[0] / "images/train/good"))


def test_images_of_a_synthetic_test_are_neither_learned_nor_calibrated_with(tmp_path):
    config = flat(tmp_path)
    config.data.synthetic_test = "cutpaste"
    drawn = splits.draw(config)
    own = [{Path(path).name for path in source.paths} for source in drawn]
    assert [len(names) for names in own] == [7, 3, 2]
    assert len(set().union(*own)) == 12
    images = splits.listed(config, drawn)
    assert splits.listed(config, splits.again(config, images)) == images
    write_image(tmp_path / "photos/new.png", 77)
    more = splits.again(config, images)
    assert Path(more.train.paths[-1]).name == "new.png"
    assert more.test.paths == drawn.test.paths
    config.eval.calibration = "cross"
    with pytest.raises(UserError, match="needs images that no part trains on: set it to None"):
        splits.draw(config)


@pytest.mark.whole
def test_what_is_measured_on_synthetic_images_is_called_synthetic(tmp_path, capsys):
    config = flat(tmp_path)
    config.data.synthetic_test, config.train.eval_every = "cutpaste", 1
    found = train(config, tmp_path / "run")
    assert rescore.evaluate_workdir(tmp_path / "run")["columns"] == found["columns"]
    lines = summary.headline(found).splitlines() + capsys.readouterr().out.splitlines()
    shown = [line for line in lines if "auroc" in line]
    assert len(shown) == 3
    assert all(
        line.count("auroc") == line.count("synthetic") - line.count("aupro") for line in shown
    )
    assert "of 2 good and " in lines[1]
    assert " of 20 synthetic images" in lines[1]
    stored = json.loads((tmp_path / "run/results.json").read_text())
    assert stored["scored_images"] == "synthetic"
    assert stored["data"]["test"]["images"] == 0
    assert stored["data"]["synthetic_test"]["kinds"] == {"good": 2, "synthetic cutpaste": 20}
    assert "test" not in stored["thresholds"]
    for column in stored["columns"].values():
        assert not {"image_auroc", "pixel_auroc"} & column.keys()
    for row in metrics_log.read(tmp_path / "run"):
        assert "image_auroc" not in row
    text = (tmp_path / "run/results.md").read_text()
    page = (tmp_path / "run/report.html").read_text()
    for words in (text, page.partition("<script>")[0]):
        assert "The test images are synthetic" in words
        for place in re.finditer("AUROC|AUPRO|average precision", words):
            assert "ynthetic" in words[place.start() - 30 : place.start()]

    write_image(tmp_path / "photos/test/good/1.png", 1)
    config.data.root = str(tmp_path / "labelled")
    shutil.copytree(tmp_path / "photos/test", tmp_path / "labelled/test")
    shutil.copytree(tmp_path / "photos", tmp_path / "labelled/train/good")
    with pytest.raises(UserError, match="the data set has test images of its own: set it to None"):
        train(config, tmp_path / "other")
