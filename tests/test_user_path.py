"""What a new user does, with the scripts: train on good images, judge new ones, open the report."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_image

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[1]
SMALL = (
    "--config.data.image_size=64",
    "--config.data.holdout=0.34",
    "--config.train.epochs=4",
    "--config.train.batch_size=4",
    "--config.train.schedule.warmup_meta_epochs=0",
    "--config.method.blocks=2",
    "--config.method.condition=8",
    "--config.eval.pictures_per_kind=0",
)


def run(script, *flags):
    words = [sys.executable, ROOT / script, *map(str, flags)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_from_a_folder_of_good_images_to_decisions(tmp_path):
    """With the embedded weights, because random ones see little."""
    images, workdir, found = (tmp_path / name for name in ("images", "run", "found"))
    for index in range(12):
        write_image(images / "train" / "good" / f"{index}.png", index, (64, 64))
    for index in range(2):
        write_image(images / "test" / "good" / f"{index}.png", 50 + index, (64, 64))
        write_image(images / "test" / "spot" / f"{index}.png", 60 + index, (64, 64), defect=True)
        write_image(tmp_path / "new" / f"good{index}.png", 70 + index, (64, 64))
        write_image(tmp_path / "new" / f"spot{index}.png", 80 + index, (64, 64), defect=True)

    config = ("--config=configs/cflow_folder.py", f"--config.data.root={images}", *SMALL)
    trained = run("train.py", f"--workdir={workdir}", *config)
    assert trained.returncode == 0, trained.stderr
    assert "threshold for a false-alarm rate of 0.2: flags" in trained.stdout
    card = json.loads((workdir / "results.json").read_text())["thresholds"]
    assert (card["images"], card["promised"]) == (4, 0.2)

    flags = (f"--workdir={workdir}", f"--input={tmp_path / 'new'}", f"--output={found}")
    judged = run("predict.py", *flags, "--false_alarm_rate=0.2", "--fail_on_anomaly")
    assert judged.returncode == 3, judged.stderr
    lines = [json.loads(line) for line in (found / "predictions.jsonl").read_text().splitlines()]
    spots = [line for line in lines if "spot" in line["path"]]
    assert [line["anomalous"] for line in spots] == [True, True]
    for line in spots:
        first = line["regions"][0]
        assert first["left"] < 20
        assert first["right"] > 8
        assert first["top"] < 20
        assert first["bottom"] > 10
    with (found / "predictions.csv").open(newline="") as table:
        assert len(list(csv.DictReader(table))) == 4

    evaluated = run("eval.py", f"--workdir={workdir}", "--false_alarm_rate=0.5")
    assert "report.html" in evaluated.stdout
    page = (workdir / "report.html").read_text()
    assert "spot" in page
    assert "data:image/" in page
