"""Numbers, config and report of a run as MLflow and Weights & Biases keep them, offline."""

import sys
import warnings

import pytest

from flowad_jax.errors import UserError
from flowad_jax.training import loggers
from flowad_jax.training.loop import train
from tests.conftest import tiny_recipe


@pytest.fixture(name="config")
def _config(image_root):
    config = tiny_recipe(image_root, "gaussian")
    config.eval.report_images = 2
    return config


def test_a_run_is_told_to_mlflow_with_config_metrics_report_and_load(config, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    config.train.loggers = ("tensorboard", "mlflow")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of SQLAlchemy, in MLflow
        found = train(config, tmp_path / "run")
        config.train.loggers = ("mlflow",)  # may change
        train(config, tmp_path / "run")  # nothing is left to do: the same run
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("flowad_jax").experiment_id
        (run,) = client.search_runs([experiment])
        names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params["method.name"] == "gaussian"
    assert run.data.metrics["last/pixel_auroc"] == found["columns"]["last"]["pixel_auroc"]
    assert "train/loss" in run.data.metrics
    assert {"report.html", "results.json", "results.md"} <= names
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_a_run_is_told_to_weights_and_biases_offline(config, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config.train.loggers = ("wandb",)
    train(config, tmp_path / "run")
    folders = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    kept = {file.name for folder in folders for file in (folder / "files").iterdir()}
    assert {"report.html", "results.json"} <= kept
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1  # one run
    assert not (tmp_path / "run" / "tensorboard").exists()


class Broken:
    """A client whose network is gone after the first points."""

    def __init__(self, workdir, config):
        self.calls = 0

    def scalars(self, values, step):
        self.calls += 1
        if self.calls > 1:
            raise ConnectionError("no route\nto host")

    def end(self, values, kept):
        raise ConnectionError("no route")

    def close(self):
        pass


def test_a_network_that_fails_does_not_end_a_training(config, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(loggers, "ELSEWHERE", {"wandb": Broken})
    monkeypatch.setattr(loggers, "_client", lambda name: None)
    config.train.loggers = ("wandb",)
    assert train(config, tmp_path / "run")["columns"]["last"]
    lines = [
        record.message for record in caplog.records if "is told nothing more" in record.message
    ]
    assert len(lines) == 2  # while it learned, and at the end
    assert all("\n" not in line for line in lines)

    def refuses(workdir, config):
        raise ConnectionError("no key")

    monkeypatch.setattr(loggers, "ELSEWHERE", {"wandb": refuses})
    with pytest.raises(UserError, match=r"train\.loggers: wandb: no key: see to its settings"):
        train(config, tmp_path / "other")


def test_names_and_missing_clients_are_refused_before_anything_is_computed(
    config, tmp_path, monkeypatch
):
    config.train.loggers = ("mlflo",)
    with pytest.raises(UserError, match=r"train\.loggers='mlflo': did you mean 'mlflow'\?"):
        train(config, tmp_path / "run")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'flowad_jax\[wandb\]', or leave it out"):
        loggers.check(["wandb"])
    assert not (tmp_path / "run").exists()
