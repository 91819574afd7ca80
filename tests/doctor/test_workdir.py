"""The doctor names each problem of a run with its remedy, and changes nothing."""

import json
import shutil

import numpy as np
import pytest

from flowad_jax.detector import checkpoint, workdir
from flowad_jax.detector.checkpoint import Position
from flowad_jax.detector.model import build_model
from flowad_jax.training.metrics_log import MetricsLog
from flowad_jax.training.optimizer import fresh_state
from tests.conftest import tiny_recipe, write_category
from tests.doctor.conftest import remove, snapshot, write

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run, without its training."""
    root = tmp_path_factory.mktemp("doctor")
    config = tiny_recipe(write_category(root / "images"))
    path = workdir.create_workdir(root / "run", config)
    model = build_model(config)
    trained = fresh_state(model)._replace(step=np.int32(3))
    meta = {"encoder_sha256": model.encoder.source["sha256"]}
    checkpoint.save(path, trained, Position(3, 0), meta)
    log = MetricsLog(path, 0, config)
    log.write("train", 3, 3, {"loss": 0.5})
    log.close()
    results = {"columns": {"last": {"image_auroc": 0.9, "pixel_ap": None, "epoch": 3}}}
    (path / "results.json").write_text(json.dumps(results))
    return path


@pytest.fixture
def run(tmp_path, finished):
    """A copy of it to spoil."""
    return shutil.copytree(finished, tmp_path / "run")


def change(key, value=None):
    """Sets a key of the stored config, or removes it."""

    def spoil(run):
        config = json.loads((run / "config.json").read_text())
        *sections, name = key.split(".")
        section = config
        for word in sections:
            section = section[word]
        del section[name]
        if value is not None:
            section[name] = value
        (run / "config.json").write_text(json.dumps(config))

    return spoil


def cut_metrics(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')


def test_a_sound_run(ask, run, monkeypatch):
    before = snapshot(run)
    monkeypatch.chdir(run.parent)
    code, text = ask("--workdir=run")
    assert code == 0, text
    for line in ("cflow on folder part", "steps 3", "3 of 3 epochs", "auroc 90.00 %", "builds"):
        assert line in text
    assert snapshot(run) == before


@pytest.mark.parametrize(
    ("spoil", "what", "remedy"),
    [
        (change("train.epochs", 9), "not finished: epoch 3 of 9", "goes on where it stopped"),
        (remove("checkpoints"), "no complete checkpoint", "goes on where it stopped"),
        (write("checkpoints/3/meta/metadata", b"{"), "checkpoints/3 is damaged", "3 to go back"),
        (remove("checkpoints/3/state"), "checkpoints/3 is damaged", "checkpoints/3 to go back"),
        (write("checkpoints/4.tmp-1/part", b""), "4.tmp-1 was left unfinished", "delete it"),
        (
            write("features/.unfinished-a/0", bytes(3 << 20)),
            "-a was left unfinished and takes 3.0 MiB",
            "delete it",
        ),
        (cut_metrics, "metrics.jsonl: line 2 of 2", "remove that line"),
        (remove("metrics.jsonl"), "metrics.jsonl is missing or empty", "train anew"),
        (remove("results.json"), "has no results.json", "flowad eval --workdir="),
        (write("results.json", b"[]"), "results.json cannot be read", "flowad eval --workdir="),
        (write("config.json", b"{"), "config.json cannot be read", "damaged"),
        (write("config.json", b"{}"), "config.json has no ", "train anew"),
        (
            write("config.json", b"[1]"),
            "cannot be read (it is [1], but must be a table)",
            "damaged",
        ),
        (change("data.norm"), "config.json has no data.norm", "train anew"),
        (change("encoder.weights", "gone.npz"), "'gone.npz' are not where", "put them there"),
        (change("data.root", "gone"), "data.root 'gone' does not exist", ""),
        # Random weights follow from the seed.
        (change("seed", 5), "weights are others than those of the run", "put the old weights back"),
        (change("method.name", "cflwo"), "unknown name 'cflwo'", "did you mean 'cflow'?"),
    ],
)
def test_each_problem_of_a_run(assert_only_problem, run, spoil, what, remedy):
    spoil(run)
    assert_only_problem(run, [f"--workdir={run}"], what, remedy)


def test_missing_weights_and_images_are_found_together(ask, run):
    change("encoder.weights", "gone.safetensors")(run)
    change("data.root", "gone")(run)
    assert "2 problems found" in ask(f"--workdir={run}")[1]


def test_features_on_disk_are_measured(ask, run):
    write("features/0123/map0.bin", bytes(2**20))(run)
    code, text = ask(f"--workdir={run}")
    assert code == 0, text
    assert "1.0 MiB in" in text


def test_a_folder_that_is_no_workdir(ask, tmp_path):
    code, text = ask(f"--workdir={tmp_path / 'nothing'}")
    assert code == 1
    assert "is not a workdir" in text
    assert not list(tmp_path.iterdir())
