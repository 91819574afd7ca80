"""A run may start from an earlier one of the same kind, on images that it does not hold out."""

import shutil

import pytest

from flowad_jax.detector import workdir
from flowad_jax.errors import UserError
from flowad_jax.recalibration import run_folder
from flowad_jax.training import loop, warm_start
from tests.conftest import write_image


@pytest.fixture(name="config")
def _config(tiny_run, tmp_path):
    """The config of the shared run, on other good images."""
    config = workdir.load_config(tiny_run[0] / "run").copy_and_resolve_references()
    shutil.copytree(config.data.root, tmp_path / "images")
    folder = next((tmp_path / "images").rglob("train/good"))
    for file in folder.iterdir():
        file.unlink()
    for index in range(8):
        write_image(folder / f"new{index}.png", 100 + index)
    with config.unlocked():
        config.data.root = str(tmp_path / "images")
        config.train.epochs = 1
        config.train.init_from = str(tiny_run[0] / "run")
    return config


def test_it_starts_where_the_earlier_one_ended(config, tmp_path, caplog):
    with caplog.at_level("INFO", logger="flowad_jax"):
        loop.train(config, tmp_path / "warm")
    assert "starting from" in caplog.text
    assert "warm start: epoch 1 ended at a training loss of" in caplog.text
    with config.unlocked():
        config.train.init_from = None
    loop.train(config, tmp_path / "cold")
    losses = [
        next(row["loss"] for row in warm_start.metrics_log.read(tmp_path / name))
        for name in ("warm", "cold")
    ]
    assert losses[0] < losses[1]


def test_what_the_first_of_several_runs_was_trained_on_is_never_held_out(
    config, tiny_run, tmp_path
):
    loop.train(config, tmp_path / "second")
    first = workdir.load_config(tiny_run[0] / "run")
    with config.unlocked():
        config.train.init_from = str(tmp_path / "second")
        config.data.root, config.data.holdout = first.data.root, 0.9
    with pytest.raises(UserError, match=r"was trained on \d+ of the images that this run holds"):
        loop.train(config, tmp_path / "third")
    known = run_folder.trained_on(tmp_path / "second")
    old = workdir.meta_of(tiny_run[0] / "run")["images"]["train"].values()
    assert {known[digest] for digest in old} == {"train"}


def test_a_warm_run_that_is_over_is_not_trained_again(config, tmp_path):
    loop.train(config, tmp_path / "warm")
    assert loop.train(config, tmp_path / "warm")["seed"] == config.seed


def test_images_that_were_trained_on_may_not_be_held_out(config, tiny_run, tmp_path):
    with config.unlocked():
        config.data.root = workdir.load_config(tiny_run[0] / "run").data.root
        config.data.holdout = 0.9  # more than there were
    with pytest.raises(UserError, match=r"was trained on \d+ of the images that this run holds"):
        loop.train(config, tmp_path / "warm")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.image_size", 96, r"another config \(data\.image_size: "),
        ("train.init_from", "missing", "missing is not a workdir"),
        ("eval.calibration", "cross_fast", "use eval.calibration='split'"),
    ],
)
def test_another_kind_of_run_is_refused(config, tmp_path, key, value, message):
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        loop.train(config, tmp_path / "warm")


def test_gain_in_words(config, tmp_path, monkeypatch):
    rows = {"cold": [5.0, 3.0, 2.0], "warm": [2.5]}

    def read(place):
        return [{"kind": "train", "loss": x, "seconds": 10.0} for x in rows[place.name]]

    monkeypatch.setattr(warm_start.metrics_log, "read", read)
    with config.unlocked():
        config.train.init_from = str(tmp_path / "cold")
    said = [warm_start.gain(config, tmp_path / "warm")]
    for loss in (6.0, 1.0):
        rows["warm"] = [loss]
        said.append(warm_start.gain(config, tmp_path / "warm"))
    assert said[0].endswith("which took the earlier run 3 epochs: about 20 s saved")
    assert said[1].endswith("nothing gained")
    assert said[2].endswith("below any of the earlier run's 3 epochs (30 s)")
