"""Whatever Pillow can write is read with the right values, upright, whole and in parts."""

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import images, transforms
from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.resized import ResizedImages
from flowad_jax.data.subset import Subset
from tests.data import image_files

# How many files there are at least, so that none is passed over without notice.
FILES = {"png": 120, "jpg": 90, "tif": 700, "bmp": 5, "gif": 8, "webp": 40, "jp2": 14, "ppm": 6}
SUFFIXES = [pytest.param(s, marks=[pytest.mark.whole] * (s == "tif")) for s in FILES]
MODES = ["RGB", "L", "P", "1", "RGBA", "I;16"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_mode_compression_and_orientation(tmp_path, suffix):
    stored, path = image_files.picture(), tmp_path / f"a.{suffix}"
    written = 0
    for case in image_files.cases(suffix):
        if not case.write(path, stored):
            continue
        written += 1
        expected = case.expected(stored)
        with images.open_windows(path) as windows:
            image, part = windows.read(), windows.read(3, 9, 5, 20)
        assert image.dtype == np.uint8
        assert image.shape == expected.shape
        assert np.abs(image - expected.astype(int)).max() <= case.tolerance, case
        assert (part == image[3:9, 5:20]).all(), case
        assert images.image_size(path) == expected.shape[:2], case
        small, size = images.read_resized(path, 8)
        assert size == expected.shape[:2]
        assert (small == transforms.resize_image(image, 8)).all(), case
    assert written >= FILES[suffix]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("filter", ["lanczos", "nearest", "box"])
def test_resized_in_its_own_mode_as_after_conversion(tmp_path, mode, filter):
    pixels = np.random.default_rng(0).integers(0, 256, (61, 37, 3), np.uint8) // 50 * 50
    image_files.to_mode(pixels, mode).save(tmp_path / "a.png")
    whole = images.read_image(tmp_path / "a.png")
    for side in (1, 16, 37, 61, 90):
        small, _ = images.read_resized(tmp_path / "a.png", side, filter)
        np.testing.assert_array_equal(small, transforms.resize_image(whole, side, filter))


@pytest.mark.parametrize("mode", MODES)
def test_large_images_are_resized_band_by_band(tmp_path, monkeypatch, mode):
    """The height of a band changes no bit, and the result is that of Pillow but for rounding."""
    stored = image_files.picture(61, 37)
    image_files.to_mode(stored, mode).save(tmp_path / "a.png")
    whole = images.read_image(tmp_path / "a.png")
    at_once = transforms.resize_image(whole, 16)
    monkeypatch.setattr(images, "AT_ONCE", 1000)
    monkeypatch.setattr(transforms, "AT_ONCE", 1000)
    expected = transforms.resize_image(whole, 16)
    np.testing.assert_allclose(expected.astype(int), at_once, atol=8)  # 8 bits between the passes
    for rows in (1, 7, 60, 61):
        monkeypatch.setattr("flowad_jax.data.decoded_image.BAND", rows * 37)
        found, _ = images.read_resized(tmp_path / "a.png", 16)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_records_at_their_size_are_resized_records(tmp_path, mode):
    """Of a source of files and of a part of it; masks included."""
    marked = np.zeros((40, 30), np.uint8)
    marked[5:20, 10:15] = 255
    image_files.to_mode(image_files.picture(40, 30), mode).save(tmp_path / "a.png")
    Image.fromarray(marked).save(tmp_path / "m.png")
    entries = [Entry(tmp_path / "a.png", "good")]
    entries.append(Entry(tmp_path / "a.png", "spot", (tmp_path / "m.png",)))
    source = FileSource(entries, white=65535)
    for one in (source, Subset(source, np.array([0, 1]))):
        for index in (0, 1):
            whole, small = one[index], one.resized(index, 16, "lanczos")
            expected = transforms.resize_image(whole.image, 16, "lanczos")
            np.testing.assert_array_equal(small.image, expected)
            np.testing.assert_array_equal(small.mask, transforms.resize_mask(whole.mask, 16))
            assert small[2:] == whole[2:]
            assert small.mask.any() == bool(index)


def test_training_never_holds_an_image_in_full(tmp_path, monkeypatch):
    """The white level of the set holds for images beside it, too."""
    Image.fromarray(np.full((9, 9), 4095, np.uint16)).save(tmp_path / "a.png")
    source = FileSource([Entry(tmp_path / "a.png", "good")], white=4095)
    kept = ResizedImages(Subset(source, np.array([0])), 8, "lanczos", 10**6)
    monkeypatch.setattr(type(source), "__getitem__", None)
    found = kept.record(0)[0], kept.image(0, 12), kept.file(tmp_path / "a.png", 5)
    assert [image.shape for image in found] == [(8, 8, 3), (12, 12, 3), (5, 5, 3)]
    assert all(image.min() == 255 for image in found)
