"""Whole runs of the methods that learn from synthetic anomalies, on a tiny data set."""

import jax
import numpy as np
import pytest

from configs.base import base
from flowad_jax.errors import UserError
from flowad_jax.training import logging as metrics_log
from flowad_jax.training import summary
from flowad_jax.training.interrupt import Interrupted
from flowad_jax.training.loop import train
from flowad_jax.training.system import build
from tests.training.test_loop import final_state, stop_at_third_batch, without_times

pytestmark = pytest.mark.whole

SMALL = {
    "ssnf": {"blocks": 1, "hidden": 4, "heads": 2, "negative_cap": 100.0, "cap_dimensions": 1},
    "sanflow": {"blocks": 1, "condition": 4},
}


def recipe(method, image_root):
    """Six training images in batches of four, at 32 px; the last batch is padded."""
    config = base(method, "folder")
    config.data.root, config.data.category = str(image_root), "part"
    config.data.image_size = 32
    config.data.workers, config.data.holdout = 0, 0.0
    config.encoder.name = "efficientnet_lite.efficientnet_lite_tiny"
    config.encoder.weights = "random"
    config.encoder.strides = (8,)
    config.method.update(SMALL[method])
    config.train.epochs, config.train.batch_size = 3, 4
    config.train.learning_rate = 1e-3
    config.eval.pictures_per_kind, config.eval.report_images = 0, 0
    return config


@pytest.mark.parametrize("method", SMALL)
def test_an_interrupted_run_resumes_to_the_same_end(method, image_root, tmp_path, monkeypatch):
    config = recipe(method, image_root)
    config.data.workers = 2  # what synthesis draws does not depend on who asks for it
    results = train(config, tmp_path / "whole")
    config.data.workers = 0
    stop_at_third_batch(monkeypatch)
    with pytest.raises(Interrupted, match="SIGTERM: saved at epoch 1, batch"):
        train(config, tmp_path / "stopped")
    monkeypatch.undo()
    train(config, tmp_path / "stopped")
    whole, stopped = (final_state(config, tmp_path / name)[0] for name in ("whole", "stopped"))
    jax.tree.map(np.testing.assert_array_equal, stopped.params, whole.params)
    jax.tree.map(np.testing.assert_array_equal, stopped.constants, whole.constants)
    assert 0 <= results["columns"]["last"]["image_auroc"] <= 1
    losses = [row["loss"] for row in metrics_log.read(tmp_path / "whole") if row["kind"] == "train"]
    assert losses[-1] < losses[0]


def test_ssnf_trains_on_synthetic_images_and_says_so(image_root, tmp_path):
    config = recipe("ssnf", image_root)
    train(config, tmp_path / "run")
    first = without_times(metrics_log.read(tmp_path / "run"))[0]
    assert 0 < first["kept/scale0"] <= 1
    assert first["nll_synthetic/scale0"] != first["nll/scale0"]
    published = summary.evaluate_workdir(tmp_path / "run", scoring="per_image")
    last = summary.evaluate_workdir(tmp_path / "run")["columns"]["last"]
    assert published["columns"]["last"]["image_auroc"] == pytest.approx(last["image_auroc"])


def test_ssnf_without_synthesis_is_plain_maximum_likelihood(image_root, tmp_path):
    config = recipe("ssnf", image_root)
    config.synthesis.name = ""
    config.data.sharpen = 0.0
    config.train.epochs = 1
    train(config, tmp_path / "run")
    first = metrics_log.read(tmp_path / "run")[0]
    assert first["kept/scale0"] == 0
    assert first["loss"] == pytest.approx(first["nll/scale0"])


def test_sanflow_keeps_running_statistics(image_root, tmp_path):
    config = recipe("sanflow", image_root)
    train(config, tmp_path / "run")
    statistics = final_state(config, tmp_path / "run")[0].constants["snet"]["norm0"]
    assert np.any(np.asarray(statistics["mean"]) != 0)
    rows = [r for r in metrics_log.read(tmp_path / "run") if r["kind"] == "train"]
    assert 0 < rows[0]["variance/snet+scale0"] <= 5


def test_few_images_are_drawn_and_visited_again(image_root):
    config = recipe("ssnf", image_root)
    config.data.few_shot, config.data.repeat = 2, 3
    system = build(config)
    assert len(system.train) == 2
    assert system.images_per_epoch == 6
    assert len(system.train_loader) == 2
    assert system.train.describe()["images"] == 2
    config.data.few_shot = 7
    with pytest.raises(UserError, match=r"data\.few_shot=7: the set has 6 training images"):
        build(config)


def test_training_images_may_have_a_filter_of_their_own(image_root):
    config = recipe("ssnf", image_root)
    config.data.train_filter, config.synthesis.name, config.data.sharpen = "nearest", "", 0.0
    system = build(config)
    trained = next(system.train_loader.in_order().epoch(0)).image
    scored = next(system.calibration_loader.epoch(0)).image
    assert np.abs(trained[:4] - scored[:4]).max() > 0.01


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("synthesis", "name", "nsaa", "synthesis kind 'nsaa' is unknown: did you mean 'nsa'"),
        ("synthesis", "blend", "hard", "synthesis blend 'hard' is unknown"),
        ("synthesis", "lenders", "nowhere", "synthesis.lenders='nowhere' is no folder"),
        ("synthesis", "mask_threshold", 2.0, r"synthesis\.mask_threshold=2\.0"),
        ("data", "sharpen", 2.0, r"data\.sharpen=2\.0 is no probability"),
        ("data", "repeat", 0, r"data\.repeat=0 is too small"),
        ("train", "decay", "l3", r"train\.decay='l3'"),
        ("cache", "place", "host", r"in every epoch \(data.sharpen=0.5, synthesis.name=nsa\)"),
    ],
)
def test_bad_values_are_named(image_root, section, key, value, message):
    config = recipe("ssnf", image_root)
    config[section][key] = value
    with pytest.raises(UserError, match=message):
        _ = build(config).optimizer


def test_constants_are_those_of_the_category(image_root):
    config = recipe("ssnf", image_root)
    config.synthesis.dataset, config.synthesis.category = "mvtec", "skrew"
    with pytest.raises(UserError, match=r"category of mvtec 'skrew'.*did you mean 'screw'"):
        build(config)
    config.synthesis.category = "screw"
    assert build(config).train_loader.deterministic is False


def test_methods_that_learn_from_normal_images_want_no_synthesis(tiny_config):
    with tiny_config.unlocked():
        tiny_config.synthesis.name = "nsa"
    with pytest.raises(UserError, match="method cflow learns from normal images alone"):
        build(tiny_config)
