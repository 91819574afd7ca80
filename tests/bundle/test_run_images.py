"""The runtime of an exported detector reads every image as the package does, or refuses it."""

import itertools

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from flowad_jax.canvas import Canvas
from flowad_jax.data import image_file, pixels
from flowad_jax.data import images as package
from flowad_jax.errors import UserError
from flowad_jax.evaluation.mask_resolution import at_image
from flowad_jax.flowad_runtime import canvas, errors, images
from tests.data import image_files, test_images
from tests.data.test_large_tiff import WRITERS

SUFFIXES = [pytest.param(s, marks=[pytest.mark.whole] * (s == "tif")) for s in image_files.OPTIONS]


def read(path, size=(16, 16), fit="stretch", filter="lanczos", white=65535):
    """By the runtime: pixels and size, or the message."""
    try:
        file = images.DecodedFile(path, white)
        resized = canvas.Canvas(*size, fit, filter).resize(file.read, file.size)
    except errors.UserError as error:
        return str(error)
    return resized, file.size


def same(path, size=(16, 16), fit="stretch", filter="lanczos", white=65535):
    """Whether both read the same pixels; false if both refuse."""
    found, refusal = read(path, size, fit, filter, white), None
    try:
        expected, shape = package.read_resized(path, Canvas(*size, fit), filter, white)
    except UserError as error:
        refusal = error
    assert isinstance(found, str) == (refusal is not None), (found, refusal)
    if refusal:
        return False
    np.testing.assert_array_equal(found[0], expected)
    assert found[1] == shape
    return True


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_mode_compression_and_orientation(tmp_path, suffix):
    path, count = tmp_path / f"a.{suffix}", 0
    for case in image_files.cases(suffix):
        if case.write(path, image_files.picture()):
            count += same(path)
    assert count >= {"pfm": 1}.get(suffix, 5)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "group4"])
def test_tiff_of_every_mode_and_orientation(tmp_path, compression):
    modes = ["1"] if compression == "group4" else image_files.MODES
    for mode, turn in itertools.product(modes, range(1, 9)):
        options = {"compression": compression}
        case = image_files.ImageCase("tif", mode, turn, options)
        if case.write(tmp_path / "a.tif", image_files.picture()):
            assert same(tmp_path / "a.tif"), case


@pytest.mark.parametrize("name", WRITERS)
def test_files_of_other_programs(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert same(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_tiff_of_every_orientation(tmp_path, orientation):
    grey, deep, colour = test_images.GREY, test_images.DEEP, test_images.COLOUR_16
    for stored in (grey, deep, np.float32(grey / 255)):
        for photometric in ("minisblack", "miniswhite"):
            assert same(test_images.tiff(tmp_path / "a.tif", stored, photometric, orientation))
    for options in ({}, {"compression": "zlib"}, {"byteorder": ">"}):
        path = test_images.tiff(tmp_path / "b.tif", colour, "rgb", orientation, **options)
        assert same(path)
        assert not same(path, white=4095)


@pytest.mark.parametrize("name", ["colour.png", "colour.tif", "grey.png", "interlaced.png"])
@pytest.mark.parametrize("white", [65535, 4095])
def test_sixteen_bits(tmp_path, name, white):
    stored = test_images.COLOUR_16 if "colour" in name else test_images.DEEP
    test_images.save_deep(tmp_path / name, stored >> 4 if white == 4095 else stored)
    assert same(tmp_path / name, white=white)


@pytest.mark.parametrize(
    "values",
    [
        np.float32([0, 0.5, 1]), np.float32([0, 1.5]), np.float32([0, -0.1]),
        np.float32([0, np.nan]), np.int16([-9, 0]), np.int32([0, 70000]), np.uint16([0, 5000]),
        np.int8([1, 2]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("white", [65535, 4095])
def test_values_of_more_than_eight_bits(tmp_path, values, white):
    same(test_images.tiff(tmp_path / "a.tif", values[None]), white=white)


def test_twelve_bits_palettes_and_bitmaps(tmp_path):
    twelve = (test_images.DEEP >> 4).ravel().astype(np.uint32)
    packed = (twelve[0::2] << 12 | twelve[1::2]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    path = test_images.tiff(tmp_path / "a.tif", np.zeros((22, 51), np.uint8))
    path.write_bytes(path.read_bytes()[: -22 * 51] + packed.tobytes())
    assert same(test_images.patched(test_images.patched(path, 256, 34), 258, 12))
    palette = Image.fromarray(image_files.picture()).quantize(16)
    palette.save(tmp_path / "b.png", transparency=bytes(range(0, 160, 10)))
    assert same(tmp_path / "b.png")
    two = Image.fromarray(np.uint8(test_images.GREY > 99)).convert("P")
    two.putpalette([0, 0, 0, 255, 255, 255] + [0] * 762)
    for bits in (1, 4, 8):
        cv2.imwrite(str(tmp_path / "c.bmp"), test_images.GREY)
        two.save(tmp_path / f"{bits}.bmp", bits=bits)
        assert same(tmp_path / f"{bits}.bmp")


def test_what_both_refuse(tmp_path):
    grey, colour = test_images.GREY, test_images.COLOUR_16
    tiff = test_images.tiff
    pages = [Image.fromarray(np.roll(grey, shift)) for shift in (0, 100)]
    for name in ("a.tif", "a.gif", "a.png", "a.webp", "a.mpo"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    test_images.patched(tiff(tmp_path / "b.tif", grey), 262, 269, kind=0)
    tiff(tmp_path / "c.tif", np.moveaxis(colour, -1, 0), "rgb", planarconfig="separate")
    both = np.concatenate([colour, colour[..., :1]], axis=-1)
    tiff(tmp_path / "d.tif", both, "rgb", extrasamples=["assocalpha"])
    Image.fromarray(grey).save(tmp_path / "e.ico")
    (tmp_path / "f.png").write_bytes(b"no image")
    Image.fromarray(grey).save(tmp_path / "g.png")
    (tmp_path / "g.png").write_bytes((tmp_path / "g.png").read_bytes()[:60])
    files = sorted(tmp_path.iterdir())
    assert len(files) == 11
    for path in (*files, tmp_path, tmp_path / "gone.png"):
        assert not same(path), path


def test_smaller_copies_are_no_pages(tmp_path):
    small = Image.fromarray(test_images.GREY[::2, ::2])
    Image.fromarray(test_images.GREY).save(tmp_path / "a.jpg", "MPO", save_all=True,
                                           append_images=[small])  # fmt: skip
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(test_images.GREY, photometric="minisblack")
        file.write(test_images.GREY[::2, ::2], photometric="minisblack", subfiletype=1)
    assert same(tmp_path / "a.jpg")
    assert same(tmp_path / "a.tif")


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(61, 37), (37, 61), (40, 40), (1, 90), (90, 2)])
def test_every_canvas_and_back(tmp_path, fit, shape):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(tmp_path / "a.png")
    for size, filter in itertools.product([(16, 24), (32, 32)], canvas.FILTERS):
        assert same(tmp_path / "a.png", size, fit, filter)
        values = rng.normal(size=size).astype(np.float32)
        back = canvas.Canvas(*size, fit, filter).at_image(values, shape)
        np.testing.assert_array_equal(back, at_image(values, Canvas(*size, fit), shape))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "I;16"])
def test_large_images_are_resized_rows_first(tmp_path, monkeypatch, mode):
    image_files.to_mode(image_files.picture(61, 37), mode).save(tmp_path / "a.png")
    before = read(tmp_path / "a.png")
    for module in (package, canvas):
        monkeypatch.setattr(module, "AT_ONCE", 1000)
    monkeypatch.setattr(canvas, "BAND", 7 * 37)
    for fit in ("stretch", "crop", "pad"):
        assert same(tmp_path / "a.png", (16, 20), fit)
    assert mode != "RGB" or (before[0] != read(tmp_path / "a.png")[0]).any()


def test_the_limit_of_pixels(tmp_path, monkeypatch):
    Image.new("L", (8, 6)).save(tmp_path / "a.png")
    Image.new("L", (1, 40)).save(tmp_path / "long.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert not same(tmp_path / "a.png")
    assert not same(tmp_path / "long.png", (8, 8))


def test_formats_are_those_of_the_package():
    assert tuple(image_file.FORMATS) == images.FORMATS
    assert set(images.SUFFIXES) == image_file.SUFFIXES


def arrays():
    grey, colour, deep = test_images.GREY, image_files.picture(), test_images.COLOUR_16
    yield from (grey, grey[..., None], colour, np.dstack([colour, grey]), deep, deep[..., 0])
    yield from (grey / 255, np.float32(grey / 255), np.float16(grey / 255), grey[::-1, ::2])
    yield from (grey.astype(int), grey > 9, colour[..., :2], colour[None], grey[0], grey[:0])
    yield from (grey / 2.0, np.full((3, 3), np.nan), -grey.astype(float), None, 7, [[1, 2]])
    yield from (image_files.to_mode(colour, mode) for mode in image_files.MODES)


@pytest.mark.parametrize("image", [*arrays()])
def test_what_programs_hold(image):
    for white in (65535, 4095):
        try:
            expected = pixels.to_pixels(image, white)
        except UserError:
            with pytest.raises(errors.UserError):
                images.to_pixels(image, white)
        else:
            found = canvas.rgb(images.to_pixels(image, white))
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_opened_images_are_turned(tmp_path, suffix):
    for turn in range(1, 9):
        image_files.ImageCase(suffix, "L", turn).write(
            tmp_path / f"a.{suffix}", image_files.picture()
        )
        with Image.open(tmp_path / f"a.{suffix}") as one, Image.open(one.filename) as other:
            found = canvas.rgb(images.to_pixels(one, 65535))
            np.testing.assert_array_equal(found, pixels.to_pixels(other))
