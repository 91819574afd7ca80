"""Transforms are what Pillow and the published formulas give, to the last bit."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from flowad_jax.data import transforms
from flowad_jax.errors import UserError

IMAGE = np.random.default_rng(1).integers(0, 256, (37, 53, 3), np.uint8)


@pytest.mark.parametrize("name", ["lanczos", "bilinear", "bicubic"])
def test_resize_is_pillow(name):
    filter = getattr(Image.Resampling, name.upper())
    expected = Image.fromarray(IMAGE).resize((24, 24), filter)
    np.testing.assert_array_equal(transforms.resize_image(IMAGE, 24, name), np.asarray(expected))


def test_lanczos_is_the_default():
    np.testing.assert_array_equal(
        transforms.resize_image(IMAGE, 24), transforms.resize_image(IMAGE, 24, "lanczos")
    )


def test_mask_is_resized_to_the_nearest_pixel():
    mask = np.arange(256).reshape(16, 16) % 3 == 0
    # The centre of an output pixel of a 4-fold reduction lies at source index 4 i + 2.
    np.testing.assert_array_equal(transforms.resize_mask(mask, 4), mask[2::4, 2::4])


def test_rotate_is_pillow_and_fills_with_black():
    expected = Image.fromarray(IMAGE).rotate(4.2, Image.Resampling.NEAREST)
    turned = transforms.rotate(IMAGE, 4.2)
    np.testing.assert_array_equal(turned, np.asarray(expected))
    assert turned.shape == IMAGE.shape
    assert not turned[0, 0].any()
    mask = IMAGE[..., 0] > 128
    expected_mask = Image.fromarray(mask.astype(np.uint8)).rotate(4.2, Image.Resampling.NEAREST)
    np.testing.assert_array_equal(transforms.rotate(mask, 4.2), np.asarray(expected_mask) > 0)


def test_sharpen_is_pillow_and_widens_contrast():
    expected = ImageEnhance.Sharpness(Image.fromarray(IMAGE)).enhance(2.0)
    np.testing.assert_array_equal(transforms.sharpen(IMAGE), np.asarray(expected))
    np.testing.assert_array_equal(transforms.sharpen(IMAGE, 1.0), IMAGE)
    assert transforms.sharpen(IMAGE).std() > IMAGE.std()


def test_normalize():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = transforms.normalize(IMAGE, mean, std)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, (IMAGE / 255 - mean) / std, atol=1e-6)


def test_norms():
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    assert transforms.norm("encoder", mean, std) == (mean, std)
    assert transforms.norm("mean_as_std", mean, std) == (mean, mean)
    assert transforms.norm("stc", mean, std) == ((0.5,) * 3, (0.225,) * 3)


def test_unknown_names():
    with pytest.raises(UserError, match=r"data\.norm='std'.*stc"):
        transforms.norm("std", (0, 0, 0), (1, 1, 1))
    with pytest.raises(UserError, match=r"data\.filter='lancos'.*did you mean 'lanczos'"):
        transforms.resampling("lancos")
