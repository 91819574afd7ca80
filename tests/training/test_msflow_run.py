"""Whole runs of MSFlow on a tiny data set; the loop itself is tested with CFLOW-AD."""

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


@pytest.fixture(name="config")
def _config(image_root):
    """Two scales, one block each; six training images in batches of four."""
    config = base("msflow", "folder")
    config.data.root, config.data.category = str(image_root), "part"
    config.data.category_sizes = {"part": 64}
    config.data.workers, config.data.holdout = 0, 0.0
    config.encoder.name = "efficientnet_lite.efficientnet_lite_tiny"
    config.encoder.weights = "random"
    config.encoder.strides = (4, 8)
    config.method.blocks, config.method.condition = (1, 1), 4
    config.train.epochs, config.train.batch_size = 3, 4
    config.train.schedule.warmup_meta_epochs = 0
    config.eval.pictures_per_kind, config.eval.report_images = 1, 0
    return config


def test_losses_are_the_same_from_images_and_from_the_cache(config, tmp_path):
    logs = {}
    for place in ("off", "host", "device", "disk"):
        config.cache.place = place
        train(config, tmp_path / place)
        logs[place] = without_times(metrics_log.read(tmp_path / place))
    first = [row["loss"] for row in logs["off"] if row["kind"] == "train"]
    assert len(first) == 3
    assert first[0] != first[1]
    for place in ("host", "device", "disk"):
        rows = [row["loss"] for row in logs[place] if row["kind"] == "train"]
        np.testing.assert_allclose(rows, first, rtol=1e-6, err_msg=place)


def test_an_interrupted_run_resumes_to_the_same_end(config, tmp_path, monkeypatch):
    train(config, tmp_path / "whole")
    stop_at_third_batch(monkeypatch)
    with pytest.raises(Interrupted, match="SIGTERM: saved at epoch 1, batch"):
        train(config, tmp_path / "stopped")
    monkeypatch.undo()
    train(config, tmp_path / "stopped")
    expected, resumed = (final_state(config, tmp_path / name)[0] for name in ("whole", "stopped"))
    jax.tree.map(np.testing.assert_array_equal, resumed.params, expected.params)


def test_both_forms_of_scoring(config, tmp_path):
    calibrated = train(config, tmp_path / "run")
    assert calibrated["data"]["image_size"] == 64
    published = summary.evaluate_workdir(tmp_path / "run", scoring="per_image")
    assert published["scoring"] == "per_image"
    for results in (calibrated, published):
        assert 0 <= results["columns"]["last"]["image_auroc"] <= 1
    assert published["columns"]["last"] != calibrated["columns"]["last"]


def test_blocks_that_do_not_fit_are_refused_before_anything_is_written(config, tmp_path):
    config.method.blocks = (1, 1, 1)
    with pytest.raises(UserError, match=r"method\.blocks=\(1, 1, 1\) is for 3 scales"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["resnet.resnet_tiny", "efficientnet_lite.efficientnet_lite_tiny"])
def test_maps_are_pooled_to_half_the_size(config, name):
    config.encoder.name = name
    shapes = [tuple(shape.shape[1:3]) for shape in build(config).feature_shapes]
    assert shapes == [(8, 8), (4, 4)]
