"""Several runs by one command: each as if alone, none lost to another's failure, one table."""

import csv
import json
import shutil

import numpy as np
import pytest

from flowad_jax.detector import workdir
from flowad_jax.detector.checkpoint import Position
from flowad_jax.errors import UserError
from flowad_jax.interrupt import Interrupted
from flowad_jax.report.results import METRICS
from flowad_jax.sweep import comparison, runner
from flowad_jax.training import loop

pytestmark = pytest.mark.whole


@pytest.fixture
def config(tiny_config, image_root):
    """Two good categories and one whose training images are damaged."""
    for name in ("bolt", "broken"):
        shutil.copytree(image_root / "part", image_root / name)
    for file in (image_root / "broken" / "train" / "good").iterdir():
        file.write_bytes(b"no image")
    tiny_config.data.category = "all"
    tiny_config.train.epochs = 1
    return tiny_config


@pytest.fixture
def quick(monkeypatch):
    """Runs that end at once, with results made up."""

    def done(config, path, *_):
        workdir.create_workdir(path, config)
        columns = {"last": dict.fromkeys(METRICS, 0.5)}
        (path / "results.json").write_text(json.dumps({"columns": columns}))

    monkeypatch.setattr(runner, "train", done)


def metrics(path):
    return json.loads((path / "results.json").read_text())["columns"]["last"]


def test_a_failure_leaves_the_others_and_is_tried_again(config, tmp_path, image_root, caplog):
    path = tmp_path / "runs"
    found = runner.run(config, path)
    status = {run["folder"]: run["status"] for run in found["runs"]}
    assert status == {"bolt": "done", "broken": "failed", "part": "done"}
    with pytest.raises(
        UserError, match=r"1 of 3 runs failed, first broken: cannot read '.*0\.png'"
    ):
        runner.require_all(found)
    text = (path / "results.md").read_text()
    assert "**mean of 2 of 3 runs**" in text
    assert "- broken: cannot read" in text

    stamp = (path / "bolt" / "results.json").stat().st_mtime_ns
    for index, file in enumerate((image_root / "part" / "train" / "good").iterdir()):
        shutil.copy(file, image_root / "broken" / "train" / "good" / f"{index}.png")
    found = runner.run(config, path)
    runner.require_all(found)
    assert (path / "bolt" / "results.json").stat().st_mtime_ns == stamp
    assert [mean["runs"] for mean in found["means"] if mean["column"] == "last"] == [3]
    assert "**mean**" in (path / "results.md").read_text()


def test_every_run_ends_as_it_would_alone(config, tmp_path):
    config.data.category, config.sweep.seeds = "bolt", (3, 4)
    found = runner.run(config, tmp_path / "all")
    assert [run["folder"] for run in found["runs"]] == ["seed_3", "seed_4"]
    config.sweep.seeds, config.seed = (), 4
    alone = loop.train(config, tmp_path / "alone")
    assert metrics(tmp_path / "all" / "seed_4") == alone["columns"]["last"]
    assert runner.headline(found).startswith(
        "efficientnet_lite.efficientnet_lite_tiny, mean of 2 of"
    )
    again = runner.evaluate(tmp_path / "all")
    assert again["means"] == found["means"]


def test_an_encoder_without_its_weights_fails_alone(config, tmp_path, quick):
    config.data.category = "part"
    config.sweep.encoders = ("efficientnet_lite.efficientnet_lite_tiny=random", "resnet.resnet18")
    train = runner.train

    def refusing(config, *rest):
        if config.encoder.name == "resnet.resnet18":
            raise UserError("no weights")
        return train(config, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "train", refusing)
        found = runner.run(config, tmp_path / "runs")
    assert [(run["status"], run["fault"]) for run in found["runs"]] == [
        ("done", ""),
        ("failed", "no weights"),
    ]


def test_an_unexpected_fault_is_kept_in_full(config, tmp_path, monkeypatch):
    config.data.category = "part,bolt"

    def faulty(config, path, *_):
        raise ZeroDivisionError("deep inside\nof it")

    monkeypatch.setattr(runner, "train", faulty)
    found = runner.run(config, tmp_path / "runs")
    assert [run["fault"] for run in found["runs"]] == ["deep inside (see error.txt)"] * 2
    assert "ZeroDivisionError" in (tmp_path / "runs" / "bolt" / "error.txt").read_text()


def test_an_interrupt_stops_all_and_the_table_says_what_is_left(
    config, tmp_path, monkeypatch, quick
):
    config.data.category = "part,bolt"
    path = tmp_path / "runs"

    def stopped(config, path, *_):
        raise Interrupted(15, Position(0, 1), path)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "train", stopped)
        with pytest.raises(Interrupted):
            runner.run(config, path)
    assert "- bolt: waiting" in (path / "results.md").read_text()
    with pytest.raises(UserError, match="none of its 2 runs is finished"):
        runner.evaluate(path)
    runner.require_all(runner.run(config, path))


def test_workdirs_are_not_mixed_up(config, tmp_path, quick):
    path = tmp_path / "runs"
    config.data.category = "part,bolt"
    runner.run(config, path)
    with pytest.raises(UserError, match="runs holds several runs: choose one of the folders"):
        workdir.load_config(path)
    config.train.learning_rate = 1.0
    with pytest.raises(UserError, match="part holds a run of another config"):
        runner.run(config, path)
    config.data.category = "part"
    with pytest.raises(UserError, match="runs holds several runs: use another --workdir"):
        loop.train(config, path)
    config.data.category = "part,bolt"
    with pytest.raises(UserError, match="part holds a single run: use another"):
        runner.run(config, path / "part")
    (path / "sweep.json").write_text("{")
    with pytest.raises(UserError, match=r"sweep\.json cannot be read"):
        runner.read(path)


def runs(values):
    """Runs of an encoder with an image AUROC for every (category, seed)."""
    return [
        {
            "folder": f"{category}/{seed}",
            "category": category,
            "encoder": "e",
            "seed": seed,
            "status": "done" if value is not None else "failed",
            "fault": "",
            "columns": {"last": {"image_auroc": value, "pixel_auroc": None}} if value else {},
        }
        for (category, seed), value in values.items()
    ]


def test_means_and_deviations():
    values = {("a", 0): 0.9, ("a", 1): 0.7, ("b", 0): 1.0, ("b", 1): 0.6}
    (mean,) = comparison.means(runs(values))
    assert mean["metrics"].keys() == {"image_auroc"}
    np.testing.assert_allclose(mean["metrics"]["image_auroc"]["mean"], 0.8)
    np.testing.assert_allclose(mean["metrics"]["image_auroc"]["std"], np.std([0.95, 0.65]))
    text = comparison.markdown({"method": "m", "data": "d", "runs": runs(values), "means": [mean]})
    assert "| a | 80.00 ± 10.00 |" in text
    assert "| **mean** | **80.00 ± 15.00** |" in text

    values["b", 1] = None
    (mean,) = comparison.means(runs(values))
    assert (mean["runs"], mean["of"]) == (3, 4)
    np.testing.assert_allclose(mean["metrics"]["image_auroc"]["mean"], (0.8 + 1.0) / 2)
    assert mean["metrics"]["image_auroc"]["std"] is None


def test_a_single_seed_shows_the_interval_of_its_test_images():
    single = runs({("a", 0): 0.9, ("b", 0): 0.8})
    single[0]["intervals"] = {"image_auroc": [0.85, 0.95]}
    found = {"method": "m", "data": "d", "runs": single, "means": comparison.means(single)}
    text = comparison.markdown(found)
    assert "| a | 90.00 (85.0 to 95.0) |" in text
    assert "| b | 80.00 |" in text  # of an earlier version


def test_a_line_for_every_run_and_column():
    found = {"runs": runs({("a,b", 0): 0.5, ("c", 0): None}), "means": []}
    rows = list(csv.reader(comparison.table(found).splitlines()))
    real = [name for name in METRICS if "synthetic" not in name]
    assert rows[0] == ["category", "encoder", "seed", "status", "column", *real]
    assert rows[1][:6] == ["a,b", "e", "0", "done", "last", "0.5"]
    assert rows[2][:6] == ["c", "e", "0", "failed", "", ""]
