"""Whole runs on a tiny data set: files, resume, signals, honest columns."""

import json
import os
import signal
import threading
import time
from contextlib import closing

import numpy as np
import pytest
from ml_collections import config_dict

from flowad_jax.errors import UserError
from flowad_jax.evaluation.metrics import METRICS
from flowad_jax.training import logging as metrics_log
from flowad_jax.training import loop, state, summary, workdir
from flowad_jax.training.checkpoint import Checkpoints
from flowad_jax.training.interrupt import Interrupted
from flowad_jax.training.loop import train
from flowad_jax.training.run import Run
from flowad_jax.training.system import build


def final_state(config, path):
    with closing(Checkpoints(path)) as checkpoints:
        return state.restored(build(config), checkpoints)


TIMES = ("seconds", "seconds_waited", "images_per_second")


def without_times(rows):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def test_a_run_leaves_what_it_promises(tiny_config, tmp_path):
    tiny_config.eval.report_images = 20
    results = train(tiny_config, tmp_path / "run")
    path = tmp_path / "run"
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

    again = summary.evaluate_workdir(path)
    assert again["columns"]["last"] == results["columns"]["last"]
    other = summary.evaluate_workdir(path, scoring="transductive")
    assert other["scoring"] == "transductive"
    assert other["columns"]["oracle"] == {}  # the run logged calibrated scores only
    assert other["columns"]["validation"] == {}
    assert train(tiny_config, path)["columns"]["last"] == results["columns"]["last"]


def test_pixel_metrics_at_the_masks_own_size_and_other_image_scores(tiny_config, tmp_path):
    tiny_config.train.epochs = 1
    found = {}
    for size, score in (("network", "method"), ("native", "top")):
        tiny_config.eval.mask_size, tiny_config.eval.image_score = size, score
        results = train(tiny_config, tmp_path / "run")
        assert (results["mask_size"], results["image_score"]) == (size, score)
        found[size] = results["columns"]["last"]
    assert found["network"]["pixel_auroc"] != found["native"]["pixel_auroc"]
    assert found["native"]["pixel_auroc"] == pytest.approx(found["network"]["pixel_auroc"], abs=0.1)
    tiny_config.eval.mask_size = "original"
    with pytest.raises(UserError, match=r"eval\.mask_size='original'"):
        train(tiny_config, tmp_path / "run")


def test_images_held_out_choose_the_epoch_of_a_column(tiny_config, tmp_path):
    tiny_config.data.holdout, tiny_config.train.eval_every = 0.3, 1
    results = train(tiny_config, tmp_path / "run")
    assert [results["data"][part]["images"] for part in ("train", "holdout")] == [4, 2]
    rows = [row for row in metrics_log.read(tmp_path / "run") if row["kind"] == "eval"]
    losses = [row["holdout_loss"] for row in rows]
    assert len(set(losses)) == 3
    chosen = results["columns"]["validation"]
    assert chosen["epoch"] == 1 + losses.index(min(losses))
    assert chosen["pixel_auroc"] == rows[chosen["epoch"] - 1]["pixel_auroc"]


def stop_at_third_batch(monkeypatch, number=3):
    """Sends SIGTERM when the third batch, or another one, is shown."""
    original, calls = Run._show, []

    def show(run, metrics, index):
        calls.append(index)
        if len(calls) == number:
            signal.raise_signal(signal.SIGTERM)
        original(run, metrics, index)

    monkeypatch.setattr(Run, "_show", show)


def test_a_signal_in_the_very_last_step_lets_the_run_end(tiny_config, tmp_path, monkeypatch):
    """Saved there and then, the state would lack what scores are measured against."""
    stop_at_third_batch(monkeypatch, number=5)  # the fifth is shown while the sixth, the last, runs
    train(tiny_config, tmp_path / "run")
    _, position, meta = final_state(tiny_config, tmp_path / "run")
    assert position == (3, 0)
    assert meta["fitted"]["scale_max"]


def test_an_interrupted_run_resumes_to_the_same_end(tiny_config, tmp_path, monkeypatch):
    """Stopped in the middle of an epoch, it ends bit-equal to a run that was not stopped."""
    train(tiny_config, tmp_path / "whole")
    expected, position, meta = final_state(tiny_config, tmp_path / "whole")

    stop_at_third_batch(monkeypatch)
    with pytest.raises(Interrupted, match="SIGTERM: saved at epoch 1, batch") as stop:
        train(tiny_config, tmp_path / "stopped")
    assert stop.value.exit_code == 128 + signal.SIGTERM
    monkeypatch.undo()
    train(tiny_config, tmp_path / "stopped")
    resumed, resumed_position, resumed_meta = final_state(tiny_config, tmp_path / "stopped")
    assert resumed_position == position
    assert resumed_meta["encoder_sha256"] == meta["encoder_sha256"]
    import jax

    for old, new in zip(jax.tree.leaves(expected), jax.tree.leaves(resumed), strict=True):
        if not jax.dtypes.issubdtype(old.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(old, new)
    whole, stopped = (metrics_log.read(tmp_path / name) for name in ("whole", "stopped"))
    assert without_times(stopped) == without_times(whole)  # also of the epoch that was stopped


def test_an_evaluation_that_a_kill_swallowed_is_made_up_for(tiny_config, tmp_path):
    """It comes after its checkpoint, so a kill in between leaves a state without figures."""
    path = tmp_path / "run"
    train(tiny_config, path)
    rows = metrics_log.read(path)
    assert rows[-1]["kind"] == "eval"
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join(lines[:-1]))
    train(tiny_config, path)
    assert without_times(metrics_log.read(path)) == without_times(rows)


def test_rows_of_a_lost_future_disappear_on_resume(tiny_config, tmp_path):
    """After a crash between two checkpoints the log goes back to the checkpoint."""
    path = tmp_path / "run"
    train(tiny_config, path)
    rows = metrics_log.read(path)
    lines = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(
        lines + json.dumps({"kind": "train", "step": 999, "epoch": 9}) + '\n{"kind": "tr'
    )
    train(tiny_config, path)
    assert metrics_log.read(path) == rows


def test_a_workdir_belongs_to_one_config(tiny_config, tmp_path):
    train(tiny_config, tmp_path / "run")
    before = sorted(str(p) for p in (tmp_path / "run").rglob("*"))
    tiny_config.train.learning_rate = 1e-3
    with pytest.raises(UserError, match=r"another config \(train\.learning_rate: 0\.0002 there"):
        train(tiny_config, tmp_path / "run")
    assert sorted(str(p) for p in (tmp_path / "run").rglob("*")) == before
    tiny_config.train.learning_rate = 2e-4
    tiny_config.eval.pictures_per_kind = 0
    assert train(tiny_config, tmp_path / "run")["pictures"] == []


def test_a_resumed_run_may_keep_its_features_elsewhere(tiny_config, tmp_path):
    path = workdir.claim(tmp_path / "run", tiny_config)
    tiny_config.cache.place = "off"
    tiny_config.cache.folder = "elsewhere"
    assert workdir.claim(path, tiny_config) == path
    tiny_config.cache.dtype = "bfloat16"
    with pytest.raises(UserError, match=r"another config \(cache\.dtype: 'float32' there"):
        workdir.claim(path, tiny_config)


def test_other_encoder_weights_are_noticed(tiny_config, tmp_path, monkeypatch):
    train(tiny_config, tmp_path / "run")
    system = build(tiny_config)
    other = system.encoder._replace(source={**system.encoder.source, "sha256": "0" * 64})
    import dataclasses

    monkeypatch.setattr(
        loop, "build", lambda config, **_: dataclasses.replace(system, encoder=other)
    )
    with pytest.raises(UserError, match="are not those of the run"):
        train(tiny_config, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run(tiny_config, tmp_path):
    tiny_config.train.learning_rate = 1e30
    with tiny_config.unlocked():
        tiny_config.train.schedule = config_dict.ConfigDict({"name": "schedules.constant"})
    with pytest.raises(
        UserError, match=r"in step \d \(epoch 0, batch \d\), .*phase scale.* of scale"
    ):
        train(tiny_config, tmp_path / "run")


def test_signals_outside_the_main_thread_are_left_alone(tiny_config, tmp_path):
    results = {}
    thread = threading.Thread(target=lambda: results.update(train(tiny_config, tmp_path / "run")))
    thread.start()
    thread.join()
    assert results["method"] == "cflow"


def test_a_second_signal_is_not_swallowed():
    from flowad_jax.training.interrupt import Signals

    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_load_config_restores_a_run(tiny_config, tmp_path):
    path = workdir.claim(tmp_path / "run", tiny_config)
    assert json.loads(workdir.load_config(path).to_json()) == json.loads(tiny_config.to_json())
    (path / "config.json").write_text("{")
    with pytest.raises(UserError, match="the workdir is damaged"):
        workdir.load_config(path)
    (path / "config.json").write_text('{"data": {}, "seed": 0}')
    missing = "cache, encoder, eval, method, precision, sweep, synthesis, train"
    with pytest.raises(UserError, match=f"has no {missing}: another"):
        workdir.load_config(path)
    with pytest.raises(UserError, match="is not a workdir"):
        workdir.load_config(tmp_path)
