"""Parts of images, also of those that are too large to be decoded whole."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from flowad_jax.data import images
from flowad_jax.errors import UserError

RNG = np.random.default_rng(0)
GREY, RGB = (RNG.integers(0, 256, shape, np.uint8) for shape in ((70, 50), (70, 50, 3)))
BOXES = ((0, 70, 0, 50), (0, 16, 0, 16), (16, 32, 40, 50), (60, 70, 3, 4), (5, 6, 0, 50))


@pytest.fixture
def small_limit(monkeypatch):
    """Pillow refuses what has more than 1000 pixels; strips and tiles may have as many."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)


KINDS = {
    "one strip": {"rowsperstrip": 70},
    "strips": {"rowsperstrip": 9},
    "strips, big-endian": {"rowsperstrip": 9, "byteorder": ">"},
    "deflate": {"rowsperstrip": 9, "compression": "zlib"},
    "deflate, predictor": {"rowsperstrip": 9, "compression": "zlib", "predictor": True},
    "tiles": {"tile": (16, 16)},
    "deflate, tiles": {"tile": (16, 32), "compression": "zlib", "byteorder": ">"},
    "big": {"bigtiff": True, "rowsperstrip": 20},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_windows_of_a_tiff_beyond_the_limit(tmp_path, small_limit, kind, photometric, dtype):
    path = tmp_path / "line.tif"
    pixels = RGB if photometric == "rgb" else GREY
    expected = 255 - pixels if photometric == "miniswhite" else pixels
    scale = {np.uint8: 1, np.uint16: 257, np.float32: np.float32(1 / 255)}[dtype]
    stored = pixels.astype(dtype) * dtype(scale)
    if dtype == np.float32 and (photometric == "rgb" or "predictor" in kind):
        pytest.skip("floats are read as grey, without predictor")
    if dtype == np.uint16 and photometric == "miniswhite" and "byteorder" in KINDS[kind]:
        pytest.skip("Pillow does not read these pixels")
    tifffile.imwrite(path, stored, photometric=photometric, **KINDS[kind])
    with pytest.raises(UserError, match="it has more than 1000 pixels"):
        images.read_image(path)
    with images.open_windows(path) as windows:
        assert windows.size == (70, 50)
        for top, bottom, left, right in BOXES:
            found = windows.read(top, bottom, left, right)
            assert found.dtype == np.uint8
            part = expected[top:bottom, left:right].reshape(bottom - top, right - left, -1)
            np.testing.assert_array_equal(found, np.broadcast_to(part, found.shape))


def test_white_level_applies_to_windows(tmp_path, small_limit):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, (GREY.astype(np.uint16) << 4), rowsperstrip=9, photometric="minisblack")
    with images.open_windows(path, white=4080) as windows:
        np.testing.assert_array_equal(windows.read()[..., 0], GREY)
    with pytest.raises(UserError, match=r"a.tif' has pixel values 0 to 4080, not 0 to 1000"):
        images.read_window(path, (0, 3, 0, 3), white=1000)


def test_files_that_cannot_be_read_in_parts(tmp_path, small_limit):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"more than 1000 pixels; .* save it as TIFF without"):
        images.read_window(tmp_path / "a.png", (0, 1, 0, 1))
    for name, words, options in (
        ("strip.tif", "its strips are too large", {"compression": "zlib", "rowsperstrip": 70}),
        ("turned.tif", "only upright grey or RGB", {"extratags": [(274, "H", 1, 6, True)]}),
        ("apart.tif", "only upright grey or RGB", {"planarconfig": "separate"}),
    ):
        pixels = np.moveaxis(RGB, -1, 0) if name == "apart.tif" else RGB
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", **options)
        with pytest.raises(UserError, match=words):
            images.read_window(tmp_path / name, (0, 1, 0, 1))
    pages = tmp_path / "pages.tif"
    tifffile.imwrite(pages, np.stack([GREY, GREY]), photometric="minisblack")
    with pytest.raises(UserError, match="it has 2 pages"):
        images.read_window(pages, (0, 1, 0, 1))
    lzw = tmp_path / "lzw.tif"
    Image.fromarray(RGB).save(lzw, compression="tiff_lzw", strip_size=900)
    with pytest.raises(UserError, match=r"lzw\.tif' in parts: save it without compression"):
        images.read_window(lzw, (0, 1, 0, 1))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_damaged_parts(tmp_path, small_limit, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, rowsperstrip=9, photometric="minisblack", compression=compression)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cannot read '.*a\.tif': the file is damaged"):
        images.read_window(path, (60, 70, 0, 50))
