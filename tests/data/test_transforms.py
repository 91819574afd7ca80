"""Transforms are what Pillow and the published formulas give, to the last bit."""

import hashlib

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from flowad_jax.data import transforms
from flowad_jax.errors import UserError

IMAGE = np.random.default_rng(1).integers(0, 256, (37, 53, 3), np.uint8)


def pillow(pixels, method, *args):
    return np.asarray(getattr(Image.fromarray(pixels), method)(*args))


@pytest.mark.parametrize("name", ["lanczos", "bilinear", "bicubic"])
def test_resize_is_pillow_and_lanczos_the_default(name):
    expected = pillow(IMAGE, "resize", (24, 24), getattr(Image.Resampling, name.upper()))
    np.testing.assert_array_equal(transforms.resize_image(IMAGE, 24, name), expected)
    if name == "lanczos":
        np.testing.assert_array_equal(transforms.resize_image(IMAGE, 24), expected)


@pytest.mark.parametrize(
    ("shape", "digest"),
    [((289, 118), "fb0ca5fda896"), ((118, 289), "e77054f2828e"), ((200, 150), "4b4bf81a5afa")],
)
def test_resizing_does_not_depend_on_the_version_of_pillow(shape, digest):
    """Before 13, Pillow begins with the rows of the first and the last of these images."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = ((7 * rows * rows + 11 * columns + rows * columns) % 251).astype(np.uint8)
    found = transforms.resize(Image.fromarray(image), (128, 128), Image.Resampling.LANCZOS)
    assert hashlib.sha256(np.asarray(found).tobytes()).hexdigest().startswith(digest)


def test_mask_is_resized_to_the_nearest_pixel():
    mask = np.arange(256).reshape(16, 16) % 3 == 0
    # The centre of an output pixel of a 4-fold reduction lies at source index 4 i + 2.
    np.testing.assert_array_equal(transforms.resize_mask(mask, 4), mask[2::4, 2::4])


def test_rotate_is_pillow_and_fills_with_black():
    expected = pillow(IMAGE, "rotate", 4.2, Image.Resampling.NEAREST)
    turned = transforms.rotate(IMAGE, 4.2)
    np.testing.assert_array_equal(turned, expected)
    assert not turned[0, 0].any()
    mask = IMAGE[..., 0] > 128
    expected = pillow(mask.astype(np.uint8), "rotate", 4.2, Image.Resampling.NEAREST)
    np.testing.assert_array_equal(transforms.rotate(mask, 4.2), expected > 0)


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


def test_names():
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    assert transforms.norm("encoder", mean, std) == (mean, std)
    assert transforms.norm("mean_as_std", mean, std) == (mean, mean)
    assert transforms.norm("stc", mean, std) == ((0.5,) * 3, (0.225,) * 3)
    with pytest.raises(UserError, match=r"data\.norm='std'.*stc"):
        transforms.norm("std", mean, std)
    with pytest.raises(UserError, match=r"data\.filter='lancos'.*did you mean 'lanczos'"):
        transforms.resampling("lancos")
