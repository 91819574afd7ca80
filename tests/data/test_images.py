"""Image files that are easily read wrongly: the right value, or one line that says what to do."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from flowad_jax.data import images
from flowad_jax.data.image_file import decode
from flowad_jax.data.masks import read_mask
from flowad_jax.doctor import data as doctor
from flowad_jax.errors import UserError
from flowad_jax.training import experiment
from tests.data.image_files import picture, upright

GREY = picture()[..., 0]
DEEP = GREY.astype(np.uint16) * 257
COLOUR_16 = np.random.default_rng(0).integers(0, 65536, (22, 34, 3), np.uint16)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def tiff(path, pixels, photometric="minisblack", orientation=1, **options):
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(path, pixels, photometric=photometric, extratags=tags, **options)
    return path


def refused(path, words, read=images.read_image, **options):
    with pytest.raises(UserError, match=words) as caught:
        read(path, **options)
    assert str(path) in str(caught.value)


def grey_values(path, **options):
    image = images.read_image(path, **options)
    assert (image[..., :1] == image).all()
    return image[..., 0]


def stored_values(path):
    with decode(path) as decoded:
        return decoded.read()


@pytest.mark.parametrize(
    ("name", "stored", "options", "shown"),
    [
        ("a.png", np.uint16([0, 128, 129, 257, 32768, 65535]), {}, [0, 0, 1, 1, 128, 255]),
        ("a.tif", np.uint16([0, 128, 129, 257, 32768, 65535]), {}, [0, 0, 1, 1, 128, 255]),
        ("a.png", np.uint16([0, 2048, 4095]), {"white": 4095}, [0, 128, 255]),
        ("a.png", np.uint16([0, 4095]), {"white": 1000}, r"pixel values 0 to 4095, not 0 to 1000"),
        ("a.tif", np.float32([0, 0.5, 1]), {}, [0, 128, 255]),
        ("a.tif", np.float32([0, 300.5]), {"white": 1023}, [0, 75]),
        ("a.tif", np.float32([0, 1.5]), {}, r"not 0 to 1: set data.options.white=255, or save it"),
        ("a.tif", np.float32([0, 300.5]), {}, r"not 0 to 1: set data.options.white=1023, or save"),
        ("a.tif", np.float32([0, 65535]), {}, r"not 0 to 1: save it with 8 or 16 bits and without"),
        ("a.tif", np.float32([0, -0.1]), {}, r"pixel values -0.1 to 0, not 0 to 1: save it with"),
        ("a.tif", np.float32([0, np.nan]), {}, r"pixel values nan to nan"),
        ("a.tif", np.int16([-9, 0]), {}, r"pixel values -9 to .*without sign"),
    ],
)
def test_values_of_more_than_eight_bits(tmp_path, name, stored, options, shown):
    if stored.dtype == np.int16:
        path = tiff(tmp_path / name, stored[None])
    else:
        path = save(tmp_path / name, stored[None])
    if isinstance(shown, str):
        refused(path, shown, **options)
    else:
        assert grey_values(path, **options)[0].tolist() == shown


def test_transparent_palette_is_read_without_a_warning(tmp_path):
    palette = Image.fromarray(picture()).quantize(16)
    palette.save(tmp_path / "a.png", transparency=bytes(range(0, 160, 10)))
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_tiff(tmp_path, orientation):
    """Pillow maps uncompressed files into memory with swapped sides if they are opened by name."""
    for pixels in (GREY, DEEP):
        path = tiff(tmp_path / "a.tif", pixels, orientation=orientation)
        np.testing.assert_array_equal(grey_values(path), upright(GREY, orientation))
    for options in ({}, {"compression": "zlib"}, {"byteorder": ">"}):
        path = tiff(tmp_path / "a.tif", COLOUR_16, "rgb", orientation, **options)
        np.testing.assert_array_equal(stored_values(path), upright(COLOUR_16, orientation))


@pytest.mark.parametrize("pixels", [GREY, DEEP, np.float32(GREY / 255)], ids=["8", "16", "float"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_black_above_white(tmp_path, pixels, compression):
    path = tiff(tmp_path / "a.tif", pixels, "miniswhite", compression=compression)
    np.testing.assert_array_equal(grey_values(path), 255 - GREY)
    np.testing.assert_array_equal(read_mask(path, 99), 255 - GREY > 99)
    if pixels.dtype == np.uint16:
        twelve = tiff(tmp_path / "b.tif", pixels >> 4, "miniswhite")
        np.testing.assert_allclose(grey_values(twelve, white=4095), 255.0 - GREY, atol=1)


def patched(path, tag, value, kind=3):
    """Changes the value of a tag of a little-endian TIFF, or its number if ``kind`` is 0."""
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<H", tag), struct.unpack_from("<I", data, 4)[0] + 2)
    struct.pack_into("<H", data, entry if kind == 0 else entry + 8, value)
    path.write_bytes(data)
    return path


def test_tiff_whose_meaning_is_lost(tmp_path):
    path = patched(tiff(tmp_path / "a.tif", GREY), 262, 269, kind=0)
    refused(path, "PhotometricInterpretation is missing.*save it anew")
    refused(tiff(tmp_path / "b.tif", GREY.astype(np.int8)), "values have a sign")
    for options in ({}, {"compression": "zlib"}):
        options["planarconfig"] = "separate"
        apart = tiff(tmp_path / "c.tif", np.moveaxis(COLOUR_16, -1, 0), "rgb", **options)
        refused(apart, "only 8 of its bits .* stored apart")
    both = np.concatenate([COLOUR_16, COLOUR_16[..., :1]], axis=-1)
    seen = tiff(tmp_path / "d.tif", both, "rgb", extrasamples=["assocalpha"])
    refused(seen, "only 8 of its bits .* without transparency")


def save_deep(path, pixels):
    """Colour, or grey with alpha, for which Pillow has no mode, interlaced or not."""
    if path.suffix == ".tif":
        tiff(path, pixels, "rgb", compression="zlib")
    elif pixels.ndim == 3:
        path.write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    else:
        is_interlaced, steps = path.stem == "interlaced", [(0, 0, 1, 1)]
        pixels = np.stack([pixels, np.roll(DEEP, 7, axis=1)], axis=-1).astype(">u2")
        if is_interlaced:  # Adam7: first row and column, and steps
            steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2)]
            steps += [(0, 1, 2, 2), (1, 0, 2, 1)]
        rows = [row for y, x, down, right in steps for row in pixels[y::down, x::right]]
        header = struct.pack(">IIBBBBB", *pixels.shape[1::-1], 16, 4, 0, 0, is_interlaced)
        content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows if row.size))
        chunks = chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def chunk(name, content):
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


@pytest.mark.parametrize("name", ["colour.png", "colour.tif", "grey.png", "interlaced.png"])
def test_sixteen_bits_are_all_kept(tmp_path, name):
    """Pillow keeps the upper 8 bits, of which a 12-bit camera uses four."""
    path, pixels = tmp_path / name, COLOUR_16 if "colour" in name else DEEP
    save_deep(path, pixels)
    np.testing.assert_array_equal(stored_values(path), pixels)
    shown = np.rint(pixels / 257).reshape(22, 34, -1)
    np.testing.assert_array_equal(images.read_image(path), np.broadcast_to(shown, (22, 34, 3)))
    save_deep(path, pixels >> 4)
    shown = np.rint((pixels >> 4) * (255 / 4095)).reshape(22, 34, -1)
    found = images.read_image(path, white=4095)
    np.testing.assert_array_equal(found, np.broadcast_to(shown, (22, 34, 3)))
    assert "data.options.white=4095" in images.depth_advice([path])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("behind", [False, True])
def test_a_png_is_tagged_before_or_behind_its_pixels(tmp_path, orientation, behind):
    tags = Image.Exif()
    tags[0x0112] = orientation
    path = save(tmp_path / "a.png", GREY)
    data = path.read_bytes()
    place = data.index(b"IEND") - 4 if behind else 33
    chunks = chunk(b"tEXt", b"a\0b") + chunk(b"eXIf", tags.tobytes()[6:])
    path.write_bytes(data[:place] + chunks + data[place:])
    shown = upright(GREY, orientation)
    np.testing.assert_array_equal(grey_values(path), shown)
    assert images.image_size(path) == shown.shape


def test_packed_twelve_bits_say_what_is_white(tmp_path):
    twelve = (DEEP >> 4).ravel().astype(np.uint32)
    packed = (twelve[0::2] << 12 | twelve[1::2]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    path = tiff(tmp_path / "a.tif", np.zeros((22, 51), np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: -22 * 51] + packed.tobytes())
    patched(patched(path, 256, 34), 258, 12)
    np.testing.assert_allclose(grey_values(path).astype(int), GREY, atol=1)


def twelve_bit(folder, number=3, top=4095):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        noise = np.random.default_rng(index).integers(0, top + 1, (36, 40)).astype(np.uint16)
        noise[0, 0] = top
        Image.fromarray(noise).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    ("top", "level"), [(4095, 4095), (3000, 4095), (1023, 1023), (16383, 16383), (200, 255)]
)
def test_largest_value_and_the_option_to_set(tmp_path, top, level):
    files = twelve_bit(tmp_path, top=top)
    advice = images.depth_advice(files)
    assert f"no value above {top}," in advice
    assert f"set data.options.white={level}" in advice
    assert images.depth_advice(files, white=level) is None  # the advice works
    assert images.read_image(files[0], level).max() == round(top * 255 / level)


def test_no_advice_where_the_range_is_used(tmp_path):
    files = twelve_bit(tmp_path, top=20000)
    Image.fromarray(GREY // 20).save(tmp_path / "dark.png")  # 8 bits: white is certain
    assert images.depth_advice([*files, tmp_path / "dark.png", tmp_path / "gone.png"]) is None
    assert images.depth_advice([]) is None


@pytest.mark.whole
def test_training_and_doctor_name_the_largest_value(tiny_config):
    part = Path(tiny_config.data.root) / "part"
    twelve_bit(part / "train" / "good", number=6)
    (text,) = [line for line in experiment.build(tiny_config).findings if "no value above" in line]
    assert "no value above 4095," in text
    assert "data.options.white=4095" in text
    (section,) = doctor.examine(str(part.parent), "folder", "part", {})
    (remedy,) = [how for what, how in section.problems if "no value above 4095" in what]
    assert "data.options.white=4095" in remedy
    (section,) = doctor.examine(str(part.parent), "folder", "part", {"white": 4095})
    assert not any("no value above" in what for what, _ in section.problems)


def test_several_pages_are_refused(tmp_path):
    pages = [Image.fromarray(np.roll(GREY, shift)) for shift in (0, 100, 200)]
    for name in ("a.tif", "a.gif", "a.png", "a.webp"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        refused(tmp_path / name, "it has 3 pages, and only one can be judged; save each")
        with pytest.raises(UserError, match="3 pages"):
            images.image_size(tmp_path / name)
        with pytest.raises(UserError, match="3 pages"):
            read_mask(tmp_path / name)
    pages[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pages[1:])
    refused(tmp_path / "a.jpg", "it has 3 pages")


def test_thumbnails_are_no_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GREY, photometric="minisblack")
        file.write(GREY[::2, ::2], photometric="minisblack", subfiletype=1)
    small = Image.fromarray(GREY[::2, ::2])
    Image.fromarray(GREY).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[small])
    for name, most in (("a.tif", 0), ("a.jpg", 12)):
        found = images.read_image(tmp_path / name)[..., 0]
        np.testing.assert_allclose(found.astype(int), GREY, atol=most)
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:  # smaller, but an image of its own
        file.write(GREY, photometric="minisblack")
        file.write(GREY[::2, ::2], photometric="minisblack")
    refused(tmp_path / "b.tif", "it has 2 pages")
