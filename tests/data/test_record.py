"""Every pixel format becomes (H, W, 3) uint8, every damaged file one line."""

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data.images import read_image
from flowad_jax.data.masks import read_mask
from flowad_jax.errors import UserError

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
RGB = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=-1)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX", "YCbCr", "CMYK"])
def test_colour_modes_are_read_as_rgb(tmp_path, mode):
    Image.fromarray(RGB).convert(mode).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image.astype(int), RGB, atol=3)  # YCbCr rounds


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P"])
def test_grey_modes_have_three_equal_channels(tmp_path, mode):
    grey = Image.fromarray(RAMP)
    expected = np.asarray(grey.convert("1").convert("L")) if mode == "1" else RAMP
    grey.convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image, np.repeat(expected[..., None], 3, axis=-1))


def test_alpha_is_dropped_not_composited(tmp_path):
    alpha = np.where(RAMP > 100, 255, 0).astype(np.uint8)[..., None]
    path = save(tmp_path / "a.png", np.concatenate([RGB, alpha], axis=-1))
    np.testing.assert_array_equal(read_image(path), RGB)


def test_transparent_palette_is_read_without_a_warning(tmp_path):
    palette = Image.fromarray(RGB).quantize(16)
    palette.save(tmp_path / "a.png", transparency=bytes(range(0, 160, 10)))
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png"), np.asarray(palette.convert("RGB"))
    )


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_by_the_full_range(tmp_path, suffix):
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    image = read_image(save(tmp_path / f"a.{suffix}", deep))
    assert image[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert (image[..., :1] == image).all()


def test_white_level_of_a_twelve_bit_camera(tmp_path):
    path = save(tmp_path / "a.png", np.array([[0, 2048, 4095]], np.uint16))
    assert read_image(path, white=4095)[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(UserError, match=r"a\.png' has pixel values 0 to 4095, not 0 to 1000"):
        read_image(path, white=1000)


def test_floats_are_scaled_from_one_and_refused_beyond(tmp_path):
    path = save(tmp_path / "a.tif", np.array([[0, 0.5, 1]], np.float32))
    assert read_image(path)[0, :, 0].tolist() == [0, 128, 255]
    for value in (1.5, -0.1, np.nan):
        with pytest.raises(UserError, match=r"a\.tif"):
            read_image(save(path, np.array([[0, value]], np.float32)))


def test_exif_orientation_turns_image_and_mask_alike(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    image = read_image(save(tmp_path / "a.png", RGB, exif=exif))
    mask = read_mask(save(tmp_path / "m.png", (RAMP > 100).astype(np.uint8) * 255, exif=exif))
    np.testing.assert_array_equal(image, np.rot90(RGB, -1))
    np.testing.assert_array_equal(mask, np.rot90(RAMP > 100, -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mask_of_ones_counts_at_threshold_zero(tmp_path, dtype):
    path = save(tmp_path / "m.png", np.array([[0, 1, 0]], dtype))
    assert read_mask(path).tolist() == [[False, True, False]]


def test_mask_threshold_in_the_middle(tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 3, 127, 128, 252]], np.uint8))
    assert read_mask(path, 127).tolist() == [[False, False, False, True, True]]
    deep = save(tmp_path / "d.png", np.array([[127 * 257, 127 * 257 + 1]], np.uint16))
    assert read_mask(deep, 127).tolist() == [[False, True]]


def test_coloured_mask_counts_its_brightest_channel(tmp_path):
    blue = np.zeros((1, 2, 3), np.uint8)
    blue[0, 1, 2] = 1  # luminance rounds to 0
    assert read_mask(save(tmp_path / "m.png", blue)).tolist() == [[False, True]]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_truncated_file(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"cut.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"cut.{suffix}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_file_that_is_no_image(tmp_path, content):
    path = tmp_path / "text.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read '.*text\.png'"):
        read_image(path)
    with pytest.raises(UserError, match=r"gone\.png.*No such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(UserError, match="Is a directory"):
        read_image(tmp_path)


# Pillow warns below twice its limit, which is an error here, and refuses what is above.
@pytest.mark.parametrize(("limit", "true"), [(30, 30), (20, 40)])
def test_decompression_bomb(tmp_path, monkeypatch, limit, true):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match=rf"bomb\.png': it has more than {true} pixels"):
        read_image(save(tmp_path / "bomb.png", RGB))
