"""Whole runs on a tiny data set: files, resume, signals, honest columns."""

import dataclasses
import json
import os
import shutil
import signal
import threading
import time

import jax
import numpy as np
import pytest
from ml_collections import config_dict

from flowad_jax.detector import state, workdir
from flowad_jax.errors import UserError
from flowad_jax.evaluation.metrics import METRICS
from flowad_jax.interrupt import Interrupted, Signals
from flowad_jax.training import loop, metrics_log, rescore, summary
from flowad_jax.training.experiment import build
from flowad_jax.training.loop import train
from flowad_jax.training.optimizer import state_shapes
from flowad_jax.training.run import TrainingRun
from tests.conftest import shared_recipe, tiny_recipe, write_category

TIMES = ("seconds", "seconds_waited", "images_per_second")


def final_state(config, path):
    experiment = build(config)
    return state.of_workdir(experiment, path, like=state_shapes(experiment))


def without_times(path):
    """The rows of a run's log."""
    rows = metrics_log.read(path)
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def assert_same_end(config, one, other):
    """Two runs end with the same bits, log, place and checksums."""
    (first, *about), (second, *others) = (final_state(config, path) for path in (one, other))
    for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True):
        if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)
    assert without_times(one) == without_times(other)  # also of an epoch that was stopped
    assert about[0] == others[0]
    assert about[1]["encoder_sha256"] == others[1]["encoder_sha256"]


def stop_after_steps(monkeypatch, number=3):
    """Sends SIGTERM when so many gradient steps are recorded, of all runs together."""
    record, calls = TrainingRun.record_step, []

    def signalled(run, metrics):
        record(run, metrics)
        calls.append(run.position)
        if len(calls) == number:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(TrainingRun, "record_step", signalled)


@pytest.fixture(scope="module", name="finished")
def _finished(tmp_path_factory):
    """The config, folder and results of a run of three epochs of two batches."""
    root = tmp_path_factory.mktemp("finished")
    config = tiny_recipe(write_category(root / "images"))
    config.eval.report_images = 20
    return config, root / "run", train(config, root / "run")


@pytest.fixture(name="path")
def _path(finished, tmp_path):
    """A copy of that run, which may be changed."""
    return shutil.copytree(finished[1], tmp_path / "run")


@pytest.fixture(name="config")
def _config(finished):
    """Its config."""
    return finished[0].copy_and_resolve_references()


@pytest.mark.whole
def test_a_run_leaves_what_it_promises(config, finished, path):
    results = finished[2]
    assert json.loads((path / "results.json").read_text()) == results
    assert {"last", "validation", "oracle"} == set(results["columns"])
    assert set(METRICS) <= set(results["columns"]["last"])
    assert results["encoder"]["sha256"]
    assert results["data"]["train"]["images"] == 6
    rows = metrics_log.read(path)
    assert [row["epoch"] for row in rows if row["kind"] == "train"] == [1, 2, 3]
    assert [row["epoch"] for row in rows if row["kind"] == "eval"] == [2, 3]
    assert rows[0]["learning_rate"] > 0
    best = max(row["image_auroc"] for row in rows if row["kind"] == "eval")
    assert results["columns"]["oracle"]["image_auroc"] == best
    assert results["columns"]["last"]["pixel_auroc"] == rows[-1]["pixel_auroc"]
    markdown = (path / "results.md").read_text()
    assert len(results["pictures"]) == 4
    for picture in results["pictures"]:
        assert picture in markdown
        assert (path / picture).stat().st_size > 1000
    assert list((path / "tensorboard").iterdir())
    page = (path / "report.html").read_text()
    assert f"{100 * results['columns']['last']['pixel_auroc']:.1f}" in page

    again = rescore.evaluate_workdir(path)
    assert again["columns"]["last"] == results["columns"]["last"]
    assert "best_f1" not in again
    best = rescore.evaluate_workdir(path, threshold="best_f1")
    assert "best F1 on these test images" in summary.headline(best)
    assert "best_f1" not in (path / "results.json").read_text()
    given = rescore.evaluate_workdir(path, threshold=-1e9)["thresholds"]
    assert (given["decided_by"], given["test"]["false_alarms"]) == ("threshold", 3)
    other = rescore.evaluate_workdir(path, scoring="transductive")
    assert other["scoring"] == "transductive"
    assert other["columns"]["oracle"] == {}  # the run logged calibrated scores only
    assert other["columns"]["validation"] == {}
    assert train(config, path)["columns"]["last"] == results["columns"]["last"]


@pytest.mark.whole
def test_pixel_metrics_at_the_masks_own_size_and_other_image_scores(config, path):
    config.eval.report_images = config.eval.pictures_per_kind = 0
    found = {}
    for size, score in (("network", "method"), ("native", "0.03")):
        config.eval.mask_size, config.eval.image_score = size, score
        results = train(config, path)
        assert (results["mask_size"], results["image_score"]) == (size, score)
        found[size] = results["columns"]["last"]
        assert results["pictures"] == []
    assert found["network"]["pixel_auroc"] != found["native"]["pixel_auroc"]
    assert found["native"]["pixel_auroc"] == pytest.approx(found["network"]["pixel_auroc"], abs=0.1)
    config.eval.mask_size = "original"
    with pytest.raises(UserError, match=r"eval\.mask_size='original'"):
        train(config, path)


def test_images_held_out_choose_the_epoch_of_a_column(tiny_run):
    root, results = tiny_run
    assert [results["data"][part]["images"] for part in ("train", "holdout")] == [8, 4]
    rows = [row for row in metrics_log.read(root / "run") if row["kind"] == "eval"]
    assert len({row["holdout_loss"] for row in rows}) == 2
    best = min(rows, key=lambda row: row["holdout_loss"])
    chosen = results["columns"]["validation"]
    assert {"epoch", "holdout_loss", "image_auroc"} <= chosen.keys()
    assert chosen.items() <= best.items()


@pytest.mark.whole
def test_a_signal_in_the_very_last_step_lets_the_run_end(config, tmp_path, monkeypatch):
    """Saved there and then, the state would lack what scores are measured against."""
    stop_after_steps(monkeypatch, 6)
    train(config, tmp_path / "run")
    _, position, meta = final_state(config, tmp_path / "run")
    assert position == (3, 0)
    assert meta["fitted"]["scale_max"]


@pytest.mark.whole
def test_an_interrupted_run_resumes_to_the_same_end(config, finished, tmp_path, monkeypatch):
    """Stopped in the middle of an epoch, it ends bit-equal to a run that was not stopped."""
    stop_after_steps(monkeypatch)
    with pytest.raises(Interrupted, match="SIGTERM: saved at epoch 1, batch 1") as stop:
        train(config, tmp_path / "stopped")
    assert stop.value.exit_code == 128 + signal.SIGTERM
    monkeypatch.undo()
    train(config, tmp_path / "stopped")
    assert_same_end(config, finished[1], tmp_path / "stopped")


@pytest.mark.whole
def test_an_evaluation_that_a_kill_swallowed_is_made_up_for(config, path):
    """It comes after its checkpoint, so a kill in between leaves a state without figures."""
    rows = without_times(path)
    assert rows[-1]["kind"] == "eval"
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join(lines[:-1]))
    train(config, path)
    assert without_times(path) == rows


@pytest.mark.whole
def test_rows_of_a_lost_future_disappear_on_resume(config, path):
    """After a crash between two checkpoints the log goes back to the checkpoint."""
    rows, future = metrics_log.read(path), {"kind": "train", "step": 999, "epoch": 9}
    with (path / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps(future) + '\n{"kind": "tr')
    train(config, path)
    assert metrics_log.read(path) == rows


def test_a_workdir_belongs_to_one_config(tiny_run):
    root, path = tiny_run[0], tiny_run[0] / "run"
    before = sorted(path.rglob("*"))
    config = shared_recipe(root)
    config.train.learning_rate = 1e-3
    with pytest.raises(UserError, match=r"another config \(train\.learning_rate: 0\.01 there"):
        train(config, path)
    assert sorted(path.rglob("*")) == before


def test_a_resumed_run_may_keep_its_features_elsewhere(tiny_config, tmp_path):
    path = workdir.create_workdir(tmp_path / "run", tiny_config)
    tiny_config.cache.place = "off"
    tiny_config.cache.folder = "elsewhere"
    assert workdir.create_workdir(path, tiny_config) == path
    tiny_config.cache.dtype = "bfloat16"
    with pytest.raises(UserError, match=r"another config \(cache\.dtype: 'float32' there"):
        workdir.create_workdir(path, tiny_config)


@pytest.mark.whole
def test_other_encoder_weights_are_noticed(config, path, monkeypatch):
    experiment = build(config)
    source = {**experiment.encoder.source, "sha256": "0" * 64}
    other = dataclasses.replace(experiment, encoder=experiment.encoder._replace(source=source))
    monkeypatch.setattr(loop, "build", lambda config, **_: other)
    with pytest.raises(UserError, match="are not those of the run"):
        train(config, path)


@pytest.mark.whole
def test_a_loss_that_is_not_finite_stops_the_run(tiny_config, tmp_path):
    tiny_config.train.learning_rate = 1e30
    with tiny_config.unlocked():
        tiny_config.train.schedule = config_dict.ConfigDict({"name": "schedules.constant"})
    with pytest.raises(
        UserError, match=r"in step \d \(epoch 0, batch \d\), .*phase scale.* of scale"
    ):
        train(tiny_config, tmp_path / "run")


@pytest.mark.whole
def test_signals_outside_the_main_thread_are_left_alone(config, path):
    results = {}
    thread = threading.Thread(target=lambda: results.update(train(config, path)))
    thread.start()
    thread.join()
    assert results["method"] == "cflow"


@pytest.fixture(name="interruptible")
def _interruptible():
    """Jobs in the background of a shell ignore Ctrl-C from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_is_not_swallowed():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_old_spellings_of_unset_are_the_same_config(tiny_config, tmp_path):
    path = workdir.create_workdir(tmp_path / "run", tiny_config)
    tiny_config.synthesis.lenders, tiny_config.cache.folder, tiny_config.data.few_shot = "", "", 0
    workdir.check(path, tiny_config)
    assert workdir.create_workdir(path, tiny_config) == path


def test_load_config_restores_a_run(tiny_config, tmp_path):
    path = workdir.create_workdir(tmp_path / "run", tiny_config)
    stored = json.loads((path / "config.json").read_text())
    assert json.loads(workdir.load_config(path).to_json()) == stored
    assert stored == json.loads(tiny_config.to_json())
    old = {**stored, "train": {**stored["train"], "plan_memory": True}}  # a key of version 0.1
    (path / "config.json").write_text(json.dumps(old))
    assert json.loads(workdir.load_config(path).to_json()) == stored
    workdir.check(path, tiny_config)
    missing = "cache, encoder, eval, method, precision, sweep, synthesis, train"
    for text, said in (
        ("{", "the workdir is damaged"),
        ('{"data": {}, "seed": 0}', f"has no {missing}: another"),
    ):
        (path / "config.json").write_text(text)
        with pytest.raises(UserError, match=said):
            workdir.load_config(path)
    with pytest.raises(UserError, match="is not a workdir"):
        workdir.load_config(tmp_path)
