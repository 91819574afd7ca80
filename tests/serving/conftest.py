"""A tiny trained run that the tests of serving share."""

from pathlib import Path

import numpy as np
import pytest

from configs.base import base
from flowad_jax.training.loop import train
from tests.conftest import write_image


@pytest.fixture(scope="session", name="run")
def _run(tmp_path_factory):
    """A finished run; of its twelve good images four were held out."""
    root = tmp_path_factory.mktemp("serving")
    for index in range(12):
        write_image(root / "images" / "train" / "good" / f"{index}.png", index)
    for index in range(3):
        write_image(root / "images" / "test" / "good" / f"{index}.png", 100 + index)
        write_image(root / "images" / "test" / "spot" / f"{index}.png", 200 + index, defect=True)
    config = base("cflow", "folder")
    config.data.root, config.data.image_size = str(root / "images"), 32
    config.data.holdout, config.data.workers = 0.34, 0
    config.encoder.name = "efficientnet_lite.efficientnet_lite_tiny"
    config.encoder.weights, config.encoder.strides = "random", (4, 8)
    config.method.blocks, config.method.condition, config.method.fibre_size = 1, 4, 16
    config.train.epochs, config.train.batch_size, config.eval.batch_size = 4, 4, 7
    config.train.learning_rate = 1e-2
    config.eval.pictures_per_kind, config.eval.report_images = 0, 0
    config.eval.false_alarm_rate = 0.3
    results = train(config, root / "run")
    return Path(root), results


@pytest.fixture(scope="session", name="files")
def _files(run):
    """The test images of the run, good ones first."""
    root, _ = run
    return [
        root / "images" / "test" / kind / f"{i}.png" for kind in ("good", "spot") for i in range(3)
    ]


@pytest.fixture(scope="session", name="pixels")
def _pixels():
    """An image that is no file."""
    return np.random.default_rng(5).integers(0, 255, (50, 70, 3)).astype(np.uint8)
