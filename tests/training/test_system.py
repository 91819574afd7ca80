"""From config to parts: sizes of categories, and which scores a method has."""

import logging

import jax
import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.training import state
from flowad_jax.training.system import build


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
    assert system.image_size == 64
    assert [shape.shape[1:3] for shape in system.feature_shapes] == [(16, 16), (8, 8)]
    (batch,) = system.calibration_loader.epoch(0)
    assert batch.image.shape[1:] == (64, 64, 3)
    maps, _ = next(system.features.test.epoch(0))
    assert maps[0].shape[1:3] == (16, 16)
    fresh = state.fresh(system)
    variables = {"params": fresh.params, "constants": fresh.constants}
    seen = system.evaluator.likelihoods(variables, system.features.test.epoch(0), 6, "test")
    assert seen.maps[0].shape == (6, 16, 16)
    assert seen.masks.shape == (6, 64, 64)
    scores = system.evaluator.scores(seen, system.evaluator.calibrate(seen))
    assert scores.pixel.shape == (6, 64, 64)


@pytest.mark.parametrize(("category", "size"), [("transistor", 64), ("part", 32)])
def test_the_usual_size_is_not_worth_a_line(tiny_config, caplog, category, size):
    with caplog.at_level(logging.INFO, "flowad_jax"):
        assert build(with_size(tiny_config, category, size)).image_size == 32
    assert "instead of" not in caplog.text


@pytest.mark.parametrize("size", [0, -256, "big", 25.6])
def test_a_size_that_is_none(tiny_config, size):
    with pytest.raises(UserError, match=rf"data\.category_sizes\.part={size!r}: must be a whole"):
        build(with_size(tiny_config, "part", size))


@pytest.mark.parametrize("scoring", ["calibrated", "transductive"])
def test_both_forms_of_scoring_are_known(tiny_config, scoring):
    tiny_config.eval.scoring = scoring
    assert build(tiny_config).method.published == "transductive"


def test_feature_shapes_are_those_of_the_encoder(tiny_config):
    system = build(tiny_config)
    image = np.zeros((1, 32, 32, 3), np.float32)
    maps = jax.jit(system.encoder.apply)(system.encoder.variables, image)
    assert [m.shape for m in maps] == [shape.shape for shape in system.feature_shapes]
