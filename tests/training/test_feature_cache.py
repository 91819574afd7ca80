"""Features computed once: from every place the same run as from the images."""

import dataclasses
import signal

import jax
import numpy as np
import pytest

from flowad_jax.detector import state
from flowad_jax.features.batches import Masks
from flowad_jax.interrupt import Interrupted
from flowad_jax.training.experiment import build
from flowad_jax.training.loop import train
from flowad_jax.training.optimizer import fresh_state
from flowad_jax.training.step import make_train_step
from tests.training.feature_cache_helpers import assert_same_epoch, prepare

PLACES = ("device", "host", "disk")


def trainer(system):
    """A function from features to the losses of two epochs."""
    step = make_train_step(system.method, system.optimizer, system.schedule)
    return lambda features: losses(system, step, features)


def losses(system, step, features):
    trained, found = fresh_state(system), []
    for epoch in range(2):
        for batch in features.train.epoch(epoch):
            trained, metrics = step(trained, batch)
            found.append(float(metrics["loss"]))
    return found


def all_maps(features, epoch=0):
    """Maps of the training set, shallow first; rows that pad are left out."""
    parts = [(batch.maps, batch.weight > 0) for batch in features.epoch(epoch)]
    levels = zip(*([np.asarray(m)[real] for m in maps] for maps, real in parts), strict=True)
    return [np.concatenate(level) for level in levels]


def test_every_place_gives_the_losses_of_the_images(config, tmp_path):
    system = build(config)
    losses = trainer(system)
    expected = losses(system.features)
    assert len(expected) == 4
    assert len(set(expected)) == 4
    for place in PLACES:
        config.cache.place = place
        kept = prepare(config, tmp_path, system)
        np.testing.assert_allclose(losses(kept), expected, rtol=1e-6)


@pytest.mark.parametrize("place", PLACES)
def test_every_place_gives_the_batches_of_the_images(config, tmp_path, place):
    config.cache.place = place
    config.eval.calibration_images = 4
    system = build(config)
    kept, images = prepare(config, tmp_path, system), system.features
    for name in ("train", "calibration", "test"):
        one, two = getattr(kept, name), getattr(images, name)
        assert len(one) == len(two)
        assert_same_epoch(one, two)
    assert_same_epoch(kept.train, images.train, epoch=1, start=1)
    assert sum(batch.weight.sum() for batch in kept.calibration.epoch(0)) == 4
    assert any(batch.mask.any() for batch in kept.test.epoch(0))
    last = list(kept.train.epoch(0))[-1]
    assert last.weight.tolist() == [1, 1, 0, 0]


def test_bfloat16_rounds_wherever_features_come_from(config, tmp_path):
    exact = all_maps(build(config).features.train)
    config.cache.dtype = "bfloat16"
    system = build(config)
    rounded = all_maps(system.features.train)
    for place in PLACES:
        config.cache.place = place
        for a, b in zip(all_maps(prepare(config, tmp_path).train), rounded, strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(rounded, exact, strict=True):
        assert np.abs(a - b).max() > 0
        np.testing.assert_allclose(a, b, rtol=2**-8)
    config.cache.dtype = "float32"
    losses = trainer(system)
    half, full = losses(system.features), losses(build(config).features)
    assert half != full
    np.testing.assert_allclose(half, full, rtol=0.02)


def test_augmented_training_images_are_encoded_anew_and_the_others_kept(config, tmp_path):
    config.data.rotation_degrees = 5.0
    system = build(config)
    calls = []

    def encode(variables, image):
        calls.append(len(image))
        return system.encode(variables, image)

    features = prepare(config, tmp_path, dataclasses.replace(system, encode=encode))
    calls.clear()
    for _ in range(2):
        list(features.test.epoch(0))
        list(features.calibration.epoch(0))
    assert not calls
    turned = [all_maps(features.train, epoch)[0] for epoch in (0, 1)]
    assert len(calls) == 4
    assert np.abs(turned[0].sum() - turned[1].sum()) > 0


@pytest.mark.whole
def test_interrupted_at_any_time_a_cached_run_ends_like_one_from_images(
    config, tmp_path, monkeypatch
):
    """Stopped while features are computed, and again within an epoch."""
    config.train.epochs = 2
    config.eval.pictures_per_kind = 0
    config.cache.place = "off"
    train(config, tmp_path / "images")
    config.cache.place = "disk"
    path = tmp_path / "cached"

    def stop_after(function, owner, count, match):
        original, calls = getattr(owner, function), []

        def counted(*arguments):
            calls.append(1)
            if len(calls) == count:
                signal.raise_signal(signal.SIGTERM)
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(owner, function, counted)
            with pytest.raises(Interrupted, match=match):
                train(config, path)

    stop_after("put", Masks, 3, "SIGTERM: saved at epoch 0, batch 0")
    assert list((path / "features").iterdir()) == []
    stop_after("take", Masks, 2, "SIGTERM: saved at epoch 0, batch 2")
    results = train(config, path)
    assert results["timing"]["features_seconds"] > 0
    system = build(config)
    ends = []
    for folder in ("images", "cached"):
        ends.append(state.of_workdir(system, tmp_path / folder)[0])
    for one, two in zip(*(jax.tree.leaves(end.params) for end in ends), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)
