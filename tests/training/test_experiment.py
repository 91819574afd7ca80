"""From config to parts: sizes of categories."""

import logging

import numpy as np
import pytest

from flowad_jax.detector.model import build_model
from flowad_jax.errors import UserError
from flowad_jax.training.experiment import build
from flowad_jax.training.optimizer import fresh_state
from tests.training.test_layouts import tiny


def with_size(config, category, size):
    with config.unlocked():
        config.data.category_sizes[category] = size
    return config


def test_a_category_has_its_own_size(tiny_config, caplog):
    with caplog.at_level(logging.INFO, "flowad_jax"):
        system = build(with_size(tiny_config, "part", 64))
    assert "3 good and 3 anomalous to test, at 64 px" in caplog.text
    line = "category part: 64 px instead of 32 px (data.category_sizes)"
    assert [record.message for record in caplog.records].count(line) == 1
    assert system.image_size == (64, 64)
    assert [shape.shape[1:3] for shape in system.batch_shapes.maps] == [(16, 16), (8, 8)]
    (batch,) = system.calibration_loader.epoch(0)
    assert batch.image.shape[1:] == (64, 64, 3)
    assert next(system.features.test.epoch(0)).maps[0].shape[1:3] == (16, 16)
    fresh = fresh_state(system)
    variables = {"params": fresh.params, "buffers": fresh.buffers}
    seen = system.evaluator.likelihoods(variables, system.features.test.epoch(0), 6, "test")
    assert seen.maps[0].shape == (6, 16, 16)
    assert seen.masks.shape == (6, 64, 64)
    scores = system.evaluator.scores(seen.maps, system.evaluator.calibrate(seen.maps))
    assert scores.pixel.shape == (6, 64, 64)


@pytest.mark.parametrize(("category", "size"), [("transistor", 64), ("part", 32)])
def test_the_usual_size_is_not_worth_a_line(tiny_config, caplog, category, size):
    with caplog.at_level(logging.INFO, "flowad_jax"):
        assert build(with_size(tiny_config, category, size)).image_size == (32, 32)
    assert "instead of" not in caplog.text


@pytest.mark.parametrize("size", [0, -256, "big", 25.6])
def test_a_size_that_is_none(tiny_config, size):
    with pytest.raises(UserError, match=rf"data\.category_sizes\.part={size!r}: must be a whole"):
        build(with_size(tiny_config, "part", size))


@pytest.mark.parametrize(
    ("size", "near"), [(60, "60: .*, as 64"), ((47, 96), r"\(47, 96\): .*, as \(48, 96\)")]
)
def test_a_size_of_broken_patches_is_told_the_nearest(tiny_config, size, near):
    tiny_config.encoder.name, tiny_config.encoder.taps = "vit.vit_tiny", (1,)
    tiny_config.data.image_size = (48, 96)
    model = build_model(tiny_config)
    assert [shape.shape[1:3] for shape in model.batch_shapes.maps] == [(3, 6)]
    tiny_config.data.image_size = size
    with pytest.raises(UserError, match=rf"data\.image_size={near}"):
        build_model(tiny_config)
    tiny_config.data.image_size, tiny_config.data.category_sizes = 64, {"part": size}
    with pytest.raises(UserError, match=rf"data\.category_sizes\.part={near}"):
        build_model(tiny_config)


@pytest.mark.parametrize("method", ["sanflow", "ssnf"])
def test_anomalies_are_made_on_images_that_are_not_square(method):
    config = tiny(method, "textures", "", "brick")
    config.data.image_size = (32, 48)
    batch = next(build(config).train_loader.epoch(0))
    assert batch.image.shape[1:] == (32, 48, 3)
    rows = np.flatnonzero(batch.label)
    assert len(rows)
    assert batch.mask[rows].any(axis=(1, 2)).all()
    assert batch.mask.shape == batch.image.shape[:3]
