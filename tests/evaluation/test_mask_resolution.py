"""Metrics at the sizes of masks: read as they are, maps resized to them."""

from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from flowad_jax.canvas import Canvas
from flowad_jax.errors import UserError
from flowad_jax.evaluation import mask_resolution, metrics
from flowad_jax.ops import arrays

SIZES = [(9, 14), (20, 12), (16, 16), (33, 40)]


class Record(NamedTuple):
    mask: np.ndarray


class Source:
    """Like a data source whose masks differ in size; the first image is good."""

    def __init__(self, sizes=tuple(SIZES)):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        height, width = self.sizes[index]
        mask = np.zeros((height, width), bool)
        if index:
            mask[height // 4 : height // 2, width // 4 : width // 2 + index] = True
            mask[-2, 1] = True
        return Record(mask)


def native(source, maps):
    masks = mask_resolution.read_masks(source)
    return masks, mask_resolution.resized(maps, [mask.shape for mask in masks], Canvas.of(16))


def draw(count, size=(16, 16), dtype=np.float64):
    return np.random.default_rng(0).gamma(2.0, size=(count, *size)).astype(dtype)


def test_masks_are_read_in_order_at_their_own_sizes():
    found = mask_resolution.read_masks(Source())
    assert [mask.shape for mask in found] == SIZES
    assert all(np.array_equal(mask, Source()[i].mask) for i, mask in enumerate(found))


def test_maps_are_enlarged_with_coinciding_edges():
    maps = draw(4)
    _, found = native(Source([(40, 64), (16, 48), (17, 16), (16, 16)]), maps)
    for one, values in zip(maps, found, strict=True):
        assert values.dtype == np.float32
        expected = arrays.resize_half_pixel(one[None], values.shape)[0] - maps.max()
        np.testing.assert_allclose(values, expected, atol=2e-6)


def test_shrinking_a_map_averages():
    maps = np.tile([0.0, 0.0, 0.0, 4.0], (1, 16, 4))
    (found,) = mask_resolution.resized(maps, [(16, 4)], Canvas.of(16))
    # Reading between the two nearest pixels would find nothing but 0.
    np.testing.assert_allclose(found[:, 1:3] + 4, 1, atol=0.3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_native_size_equals_network_size_where_masks_have_it(dtype):
    source, maps = Source([(16, 16)] * 5), draw(5, dtype=dtype)
    labels = np.array([0, 1, 1, 1, 1])
    masks, wide = native(source, maps)
    expected = metrics.evaluate(labels, labels, np.stack(masks), maps)
    assert metrics.evaluate(labels, labels, masks, wide) == pytest.approx(expected, abs=1e-6)


def test_saturated_maps_keep_their_order():
    """Likelihoods down to 1e-12, of which float32 would make ties at the top of the map."""
    likelihood = np.logspace(-12, 0, 256).reshape(1, 16, 16)
    maps = 3.0 - likelihood
    assert len(np.unique(maps.astype(np.float32))) < 200
    (found,) = mask_resolution.resized(maps, [(16, 16)], Canvas.of(16))
    assert len(np.unique(found)) == 256
    np.testing.assert_array_equal(np.argsort(found, axis=None), np.argsort(maps, axis=None))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_image_with_a_score_that_is_not_finite_is_named(value):
    maps = draw(4)
    maps[2, 3, 4] = value
    masks, wide = native(Source(), maps)
    with pytest.raises(UserError, match="image 2 of the test set has a score that is not finite"):
        metrics.pixel_metrics(masks, wide)


def test_a_mask_that_cannot_be_read_is_reported():
    class Broken(Source):
        def __getitem__(self, index):
            if index == 2:
                raise UserError("cannot read 'mask.png': it is damaged; replace or remove it")
            return super().__getitem__(index)

    with pytest.raises(UserError, match=r"cannot read 'mask\.png'"):
        native(Broken(), draw(4))


def test_a_data_set_with_files_of_several_sizes(image_root):
    from flowad_jax.data.sets import folder

    mask = np.zeros((120, 90), np.uint8)
    mask[30:60, 20:60] = 255
    part = image_root / "part"
    Image.fromarray(mask).save(part / "ground_truth" / "spot" / "1_mask.png")
    Image.fromarray(np.full((120, 90), 99, np.uint8)).save(part / "test" / "spot" / "1.png")
    source = folder.build(str(image_root), "part", "test")
    masks, maps = native(source, draw(len(source), (32, 32)))
    assert sorted({mask.shape for mask in masks}) == [(40, 36), (120, 90)]
    assert sorted(mask.sum() for mask in masks) == [0, 0, 0, 120, 120, 1200]
    found = metrics.evaluate(source.labels, source.labels, masks, maps)
    assert all(0 < value <= 1 for value in found.values())
