"""Masks of every mode, depth, orientation and compression mark the same pixels, or are remarked."""

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import masks
from flowad_jax.data.masks import inspect_mask, read_mask
from flowad_jax.errors import UserError
from tests.data.image_files import OPTIONS, TURNABLE, cases, upright

RIGHT = np.zeros((40, 60), bool)
RIGHT[10:20, 20:40] = True


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


SUFFIXES = [pytest.param(s, marks=[pytest.mark.whole] * (s == "tif")) for s in OPTIONS]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_pixels_are_marked_however_a_mask_is_written(tmp_path, suffix):
    picture = np.repeat(np.where(RIGHT, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)
    path, written = tmp_path / f"mask.{suffix}", 0
    for case in cases(suffix):
        loses_hidden = suffix == "gif" or (suffix == "webp" and "exact" not in case.options)
        if not (loses_hidden and case.mode == "RGBA") and case.write(path, picture):
            written += 1
            found = read_mask(path)
            assert found.sum() == 200, case
            np.testing.assert_array_equal(found, upright(RIGHT, case.orientation), str(case))
    assert written >= 8 if suffix in TURNABLE else written


@pytest.mark.parametrize("colour", [0, 128, 255])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "gif"])
def test_a_mask_in_the_alpha_channel(tmp_path, suffix, colour):
    alpha = Image.fromarray(np.where(RIGHT, 255, 0).astype(np.uint8))
    exact = {"webp": {"lossless": True, "exact": True}}.get(suffix, {})
    for mode in ("LA", "RGBA")[suffix == "gif" :]:  # no LA in GIF
        image = Image.new(mode, alpha.size, (colour,) * (len(mode) - 1) + (255,))
        image.putalpha(alpha)
        for turn in range(1, 9 if suffix in TURNABLE else 2):
            exif = {"exif": turned(turn)} if turn > 1 else {}
            image.save(tmp_path / f"m.{suffix}", **exact, **exif)
            found = inspect_mask(tmp_path / f"m.{suffix}")
            np.testing.assert_array_equal(found.mask, upright(RIGHT, turn))
            assert found.remarks == ()


def test_colours_under_transparency(tmp_path):
    """What is filled with one colour behind drawn defects is no defect; other colours count."""
    pixels = np.full((40, 60, 4), 255, np.uint8)
    pixels[..., 3] = np.where(RIGHT, 255, 0)
    pixels[10:20, 20:30, 1:3] = 0
    found = inspect_mask(save(tmp_path / "m.png", pixels))
    np.testing.assert_array_equal(found.mask, RIGHT)
    assert found.remarks == (masks.FILLED,)
    pixels[..., :3] = np.where(RIGHT, 255, 0)[..., None]
    pixels[..., 3] = 255
    pixels[:15, :25, 3] = 0
    found = inspect_mask(save(tmp_path / "m.png", pixels))
    np.testing.assert_array_equal(found.mask, RIGHT)
    assert found.remarks == (masks.HIDDEN,)
    pixels[..., 3] = 0  # no pixel differs in it from another
    assert inspect_mask(save(tmp_path / "m.png", pixels)).remarks == ()


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 95, 100])
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0)])
def test_jpeg_masks_are_split_in_the_middle(tmp_path, quality, colour):
    pixels = np.where(RIGHT[..., None], colour, 0).astype(np.uint8)
    path = save(tmp_path / "m.jpg", pixels, quality=quality, subsampling=0)
    found = inspect_mask(path)
    with Image.open(path) as image:
        grey = np.asarray(image).max(axis=-1)
    np.testing.assert_array_equal(found.mask, grey > 127)
    assert np.sum(found.mask != RIGHT) <= (0 if quality >= 75 else 12)
    assert found.remarks == ((masks.SPLIT,) if len(np.unique(grey)) > 2 else ())
    again = save(tmp_path / "again.png", grey)  # the same noise in another format
    np.testing.assert_array_equal(read_mask(again), grey > 127)


@pytest.mark.parametrize("scale", [1, 257])
def test_soft_edges_are_split_in_the_middle(tmp_path, scale):
    large = Image.new("L", (600, 400))
    large.paste(255, (200, 100, 400, 200))
    soft = np.asarray(large.rotate(20, Image.Resampling.BICUBIC).resize((60, 40)), np.uint16)
    found = inspect_mask(save(tmp_path / "m.png", soft * np.uint16(scale)))
    if scale == 257:
        np.testing.assert_array_equal(found.mask, soft > 127)
        assert found.remarks == (masks.SPLIT,)
    else:  # dark values in a file of 16 bits: nobody knows what white is
        np.testing.assert_array_equal(found.mask, soft > 0)
        assert found.remarks == (masks.GREY,)
    small = inspect_mask(save(tmp_path / "m.png", soft.astype(np.uint8)))
    np.testing.assert_array_equal(small.mask, soft > 127)
    assert inspect_mask(tmp_path / "m.png", 200).remarks == ()  # somebody decided


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "classes", [(1,), (1, 2, 3), tuple(range(1, 8)), (233, 245), (200, 201, 255), (128,), (255,)]
)
def test_numbers_of_classes_are_all_defects(tmp_path, classes, dtype):
    values = np.zeros((40, 60), dtype)
    values[10 : 10 + len(classes), 20:40] = np.array(classes)[:, None]
    found = inspect_mask(save(tmp_path / "m.png", values))
    np.testing.assert_array_equal(found.mask, values > 0)
    assert found.remarks == ()


ROWS, COLUMNS = np.mgrid[:40, :60]


@pytest.mark.parametrize(
    ("values", "remarks"),
    [
        (np.where(RIGHT, 255, 0) + 100 * (ROWS > 30), (masks.LEVELS,)),
        ((60 * ROWS + COLUMNS) / 2400 * 255, (masks.GREY, masks.INVERTED)),
        (np.where(RIGHT, 0, 255), (masks.INVERTED,)),
        (np.where(RIGHT, 1, 2), (masks.INVERTED,)),
        (np.where(RIGHT, 128, 255), (masks.INVERTED,)),
        ((ROWS < 8) | (ROWS > 31) | (COLUMNS < 10) | (COLUMNS > 49), (masks.INVERTED,)),  # border
        (COLUMNS >= 5, (masks.INVERTED,)),  # much, but not all of the border
    ],
)
def test_doubtful_masks_are_remarked_and_all_above_zero_counts(tmp_path, values, remarks):
    found = inspect_mask(save(tmp_path / "m.png", values.astype(np.uint8)))
    np.testing.assert_array_equal(found.mask, values.astype(np.uint8) > 0)
    assert found.remarks == remarks


def test_threshold_and_colours(tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 3, 127, 128, 252]], np.uint8))
    assert read_mask(path, 127).tolist() == [[False, False, False, True, True]]
    deep = save(tmp_path / "d.png", np.array([[127 * 257, 127 * 257 + 1]], np.uint16))
    assert read_mask(deep, 127).tolist() == [[False, True]]
    blue = np.zeros((1, 2, 3), np.uint8)
    blue[0, 1, 2] = 1  # luminance rounds to 0
    assert read_mask(save(tmp_path / "m.png", blue)).tolist() == [[False, True]]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("width", [3, 60])
def test_a_bmp_of_two_colours_has_not_always_one_bit(tmp_path, bits, width):
    """Pillow reads such files as if there were, whose pixels lie elsewhere."""
    right = RIGHT[:, 19 : 19 + width] if width < 60 else RIGHT
    path = tmp_path / "m.bmp"
    image = Image.fromarray(right.astype(np.uint8))
    image.putpalette(bytes(3) + bytes([255] * 3))
    image.save(path)
    if bits == 4:
        stride = (width * 4 + 31) // 32 * 4
        rows = np.zeros((40, 2 * stride), np.uint8)
        rows[:, :width] = right[::-1]
        head = bytearray(path.read_bytes()[:62])
        head[28] = 4
        path.write_bytes(bytes(head) + (rows[:, ::2] << 4 | rows[:, 1::2]).tobytes())
    np.testing.assert_array_equal(read_mask(path), right)


@pytest.mark.parametrize("values", [[0, -1], [0, np.nan]])
def test_what_is_neither_defect_nor_none_is_refused(tmp_path, values):
    path = tmp_path / "mask.tif"
    Image.fromarray(np.tile(np.float32(values), (8, 4))).save(path)
    with pytest.raises(UserError, match=r"mask.tif' has values that are negative or no numbers"):
        read_mask(path)
