"""What the tests of kept features share."""

import dataclasses

import jax
import numpy as np

from flowad_jax.training import feature_cache
from flowad_jax.training.experiment import build


def go_on():
    """Nobody asks to stop."""


def prepare(config, folder, system=None, stop=go_on):
    return feature_cache.prepare(system or build(config), folder, stop)


def without_encoder(config):
    """A system in which nothing can be encoded; asking for shapes is not encoding."""
    system = build(config)

    def encode(variables, image):
        assert isinstance(image, jax.core.Tracer), "the encoder ran"
        return system.encode(variables, image)

    return dataclasses.replace(system, encode=encode)


def assert_same_epoch(one, two, epoch=0, start=0):
    pairs = list(zip(one.epoch(epoch, start), two.epoch(epoch, start), strict=True))
    assert pairs
    for batch, other in pairs:
        assert batch.image is None
        for a, b in zip(batch.maps, other.maps, strict=True):
            assert a.dtype == b.dtype == np.float32
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
        for a, b in zip(batch[2:], other[2:], strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
