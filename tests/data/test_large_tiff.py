"""Parts of images that have more pixels than Pillow's limit."""

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from flowad_jax.data import images
from flowad_jax.errors import UserError

RNG = np.random.default_rng(0)
GREY, COLOUR = (RNG.integers(0, 256, shape, np.uint8) for shape in ((70, 50), (70, 50, 3)))
GREY_16, COLOUR_16 = (RNG.integers(0, 65536, shape, np.uint16) for shape in ((70, 50), (70, 50, 3)))
BOXES = ((0, 70, 0, 50), (0, 16, 0, 16), (16, 32, 40, 50), (60, 70, 3, 4), (5, 6, 0, 50))


@pytest.fixture
def small_limit(monkeypatch):
    """Pillow refuses what has more than 1000 pixels; strips and tiles may have as many."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)


def read_window(path, *box, **options):
    with images.open_windows(path, **options) as windows:
        return windows.read(*box)


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
    pixels = COLOUR if photometric == "rgb" else GREY
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
    np.testing.assert_array_equal(read_window(path, white=4080)[..., 0], GREY)
    with pytest.raises(UserError, match=r"a.tif' has pixel values 0 to 4080, not 0 to 1000"):
        read_window(path, 0, 3, white=1000)


def pillow(pixels, mode=None, **options):
    image = Image.fromarray(pixels)
    image = image.convert(mode) if mode else image
    return lambda path: image.save(path, **options)


def opencv(pixels):
    return lambda path: cv2.imwrite(str(path), pixels)


def tiff(pixels, photometric="rgb", **options):
    return lambda path: tifffile.imwrite(path, pixels, photometric=photometric, **options)


TURNED_TAG, PLANES = (274, "H", 1, 6, True), np.moveaxis(COLOUR, -1, 0)
TURNED = Image.Exif()
TURNED[274] = 6


def test_pages_of_which_only_the_first_would_be_judged(tmp_path, small_limit):
    tiff(np.stack([GREY, GREY]), "minisblack")(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif'.*it has 2 pages"):
        read_window(tmp_path / "a.tif", 0, 1, 0, 1)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_damaged_parts(tmp_path, small_limit, compression):
    path = tmp_path / "a.tif"
    tiff(GREY, "minisblack", rowsperstrip=9, compression=compression)(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cannot read '.*a\.tif': the file is damaged"):
        read_window(path, 60)


WRITERS = {
    "grey.png": pillow(GREY),
    "rgb.png": pillow(COLOUR),
    "alpha.png": pillow(np.dstack([COLOUR, GREY])),
    "grey_alpha.png": pillow(np.dstack([GREY, GREY.T.reshape(GREY.shape)])),
    "palette.png": pillow(COLOUR, "P"),
    "bilevel.png": pillow(GREY, "1"),
    "grey16.png": pillow(GREY_16),
    "rgb16.png": opencv(COLOUR_16),
    "turned.png": pillow(COLOUR, exif=TURNED),
    "a.bmp": pillow(COLOUR),
    "grey.bmp": pillow(GREY),
    "a.gif": pillow(GREY),
    "a.jpg": pillow(COLOUR),
    "turned.jpg": pillow(COLOUR, exif=TURNED),
    "cmyk.jpg": pillow(COLOUR, "CMYK"),
    "a.jp2": pillow(COLOUR),
    "a.ppm": pillow(COLOUR),
    "16.pgm": opencv(GREY_16),
    "a.pfm": pillow(GREY.astype(np.float32) / 255),
    "a.webp": pillow(COLOUR, lossless=True),
    "lzw.tif": pillow(COLOUR, compression="tiff_lzw"),
    "turned.tif": tiff(COLOUR, extratags=[TURNED_TAG]),
    "strips.tif": tiff(COLOUR, compression="zlib", rowsperstrip=70),
    "apart.tif": tiff(PLANES, planarconfig="separate"),
    "one_strip.tif": tiff(GREY, "minisblack", compression="zlib", rowsperstrip=70),
    "white_is_0.tif": tiff(GREY_16, "miniswhite"),
    "big_endian.tif": tiff(GREY_16, "minisblack", byteorder=">"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_windows_of_what_is_decoded_whole(tmp_path, monkeypatch, name):
    path = tmp_path / name
    WRITERS[name](path)
    expected = images.read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(UserError, match="more than 1000 pixels; make it smaller"):
        images.read_image(path)
    np.testing.assert_array_equal(read_window(path), expected)
    np.testing.assert_array_equal(read_window(path, 11, 30, 20, 37), expected[11:30, 20:37])
    assert Image.MAX_IMAGE_PIXELS == 500


@pytest.mark.parametrize(("name", "needed"), [("grey.png", 1), ("rgb.png", 4), ("rgb16.png", 8)])
def test_what_does_not_fit_into_memory_is_refused(tmp_path, small_limit, monkeypatch, name, needed):
    WRITERS[name](tmp_path / name)
    needed *= GREY.size
    monkeypatch.setattr("flowad_jax.memory.host", lambda: needed)
    read_window(tmp_path / name)
    monkeypatch.setattr("flowad_jax.memory.host", lambda: needed - 1)
    with pytest.raises(UserError, match=rf"{name}': its pixels take .* KiB .* cut it into parts"):
        read_window(tmp_path / name)
