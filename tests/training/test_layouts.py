"""Every data set, as it lies on disk or prepared with TFDS, trains every method."""

import functools

import jax
import numpy as np
import pytest

from flowad_jax.data import record, tfds_builder
from flowad_jax.features.batches import Encoded
from flowad_jax.recipes.base import base
from flowad_jax.training.experiment import build
from flowad_jax.training.optimizer import fresh_state
from flowad_jax.training.step import make_train_step
from tests.data import layouts

METHODS = ("cflow", "sanflow", "msflow", "ssnf")


def tiny(method, name, root, category):
    """The recipe of a method on a data set with the smallest encoder."""
    config = base(method, name)
    with config.unlocked():
        config.encoder.taps = (0, 1, 2) if method == "msflow" else (2,)
    config.data.root, config.data.category = str(root), category
    config.data.image_size = 32
    config.data.workers = 0
    config.encoder.name = "efficientnet_lite.efficientnet_lite_tiny"
    config.encoder.weights = "random"
    config.train.batch_size = 2
    if method == "msflow":
        config.method.blocks = (1, 1, 1)
    elif method == "ssnf":
        config.method.blocks, config.method.hidden = 1, 8
    else:
        config.method.blocks, config.method.condition = 1, 8
    return config


@functools.cache
def step(method):
    """One program and one state for all data sets: only their images differ."""
    system = build(tiny(method, "textures", "", "brick"))
    clip = system.config.train.clip_norm
    run = make_train_step(system.method, system.optimizer, system.schedule, clip)
    return system, run, jax.device_get(fresh_state(system))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Writes a data set once for all methods."""

    @functools.cache
    def write(name):
        root = tmp_path_factory.mktemp(name)
        layouts.ALL[name][0](root)
        return root

    return write


def train(method, config):
    first, run, fresh = step(method)
    system = build(config)
    features = Encoded(first.encode, first.encoder.variables, system.train_loader)
    batch = next(features.epoch(0))
    trained, metrics = run(jax.tree.map(jax.numpy.array, fresh), batch)
    assert bool(metrics["finite"])
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), fresh.params, trained.params)
    assert any(jax.tree.leaves(moved))
    return system, float(metrics["loss"])


@pytest.mark.parametrize("name", layouts.ALL)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_on_every_layout(method, name, place):
    system, _ = train(method, tiny(method, name, place(name), layouts.ALL[name][1]))
    assert len(system.holdout) > 0
    assert {0, 1} == set(system.test.labels.tolist())


@pytest.mark.parametrize("name", ["mvtec_loco", "magnetic_tile", "csv"])
@pytest.mark.parametrize("method", METHODS)
def test_the_same_step_from_a_prepared_set(method, name, place, tmp_path):
    root, category = place(name), layouts.ALL[name][1]
    tfds_builder.prepare(name, root, category, tmp_path, {})
    folder, loss = train(method, tiny(method, name, root, category))
    prepared, same = train(method, tiny(method, f"tfds:{name}", tmp_path, category))
    assert loss == same
    for split in ("train", "holdout", "test"):
        assert record.count(getattr(folder, split)) == record.count(getattr(prepared, split))


def test_official_validation_images_are_held_out_unless_told_otherwise(place):
    config = tiny("cflow", "mvtec_loco", place("mvtec_loco"), "breakfast_box")
    own = build(config)
    assert (len(own.train), len(own.holdout)) == (4, 2)
    assert all("/validation/" in path for path in own.holdout.paths)
    config.data.holdout_from, config.data.holdout = "train", 0.25
    share = build(config)
    assert (len(share.train), len(share.holdout)) == (3, 1)
    assert all("/train/" in path for path in share.holdout.paths)
