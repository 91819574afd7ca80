"""Features on their way from images: what is waited for is measured, and the order is kept."""

import time

import jax.numpy as jnp
import numpy as np

from flowad_jax.data.loader import Loader
from flowad_jax.features.batches import Encoded
from flowad_jax.types import Batch
from tests.data.test_loader import ONE, ZERO, Numbered

PAUSE = 0.05


class Slow(Numbered):
    def __getitem__(self, index):
        time.sleep(PAUSE)
        return super().__getitem__(index)


def encoded(source, **options):
    loader = Loader(source, 16, 3, ZERO, ONE, **options)
    return Encoded(lambda variables, image: Batch((image.mean((1, 2)),)), {}, loader), loader


def test_waiting_for_images_is_measured_anew_in_every_epoch():
    features, _ = encoded(Slow(6), workers=0)
    list(features.epoch(0))
    assert features.waited > 6 * PAUSE
    list(features.epoch(1))  # from the cache of images
    assert features.waited < 6 * PAUSE


def test_what_comes_early_comes_in_order():
    features, loader = encoded(Numbered(8))
    found = list(features.epoch(3, 1))
    assert len(found) == 2
    for batch, expected in zip(found, loader.epoch(3, 1), strict=True):
        (maps,) = batch.maps
        assert isinstance(maps, jnp.ndarray)
        np.testing.assert_allclose(maps, expected.image.mean((1, 2)), rtol=1e-5)
        np.testing.assert_array_equal(batch.label, expected.label)
