"""Masks of every mode, depth, orientation and compression mark the same pixels, or are remarked."""

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import _files, folder, masks, sources
from flowad_jax.data.findings import findings
from flowad_jax.data.masks import inspect_mask, read_mask
from flowad_jax.data.record import Record
from flowad_jax.data.subset import Subset
from flowad_jax.errors import UserError
from flowad_jax.evaluation import native
from tests.data import layouts
from tests.data.image_files import MODES, OPTIONS, TURNABLE, cases, upright

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


@pytest.mark.parametrize("suffix", OPTIONS)
def test_the_same_pixels_are_marked_however_a_mask_is_written(tmp_path, suffix):
    picture = np.repeat(np.where(RIGHT, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)
    path, written = tmp_path / f"mask.{suffix}", 0
    for case in (case for mode in MODES for case in cases(suffix, mode)):
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
    for row, number in enumerate(classes):
        values[10 + row, 20:40] = number
    found = inspect_mask(save(tmp_path / "m.png", values))
    np.testing.assert_array_equal(found.mask, values > 0)
    assert found.remarks == ()


def test_what_may_be_classes_or_not_counts_and_is_remarked(tmp_path):
    values = np.zeros((40, 60), np.uint8)
    values[10:20, 20:40], values[30:35, 5:9] = 255, 100
    found = inspect_mask(save(tmp_path / "m.png", values))
    np.testing.assert_array_equal(found.mask, values > 0)
    assert found.remarks == (masks.LEVELS,)
    ramp = np.arange(2400, dtype=np.float32).reshape(40, 60) / 2400 * 255
    found = inspect_mask(save(tmp_path / "m.png", ramp.astype(np.uint8)))
    assert found.remarks[0] == masks.GREY


@pytest.mark.parametrize("values", [(255, 0), (2, 1), (255, 128)])
def test_inverted_masks_are_remarked_and_left(tmp_path, values):
    found = inspect_mask(save(tmp_path / "m.png", np.where(RIGHT, *values[::-1]).astype(np.uint8)))
    assert found.mask[0].all()
    assert found.remarks == (masks.INVERTED,)
    wide = ~RIGHT
    wide[8:32, 10:50] = False  # much is free, but the border is not
    assert inspect_mask(save(tmp_path / "m.png", wide)).remarks == (masks.INVERTED,)
    most = np.ones((40, 60), bool)
    most[:, :5] = False
    assert inspect_mask(save(tmp_path / "m.png", most)).remarks == (masks.INVERTED,)


@pytest.fixture
def part(tmp_path):
    """A category with one good and three anomalous test images of 60 x 40."""
    rng = np.random.default_rng(0)
    for name in ("train/good/0", "test/good/0", "test/spot/0", "test/spot/1", "test/spot/2"):
        save(tmp_path / f"part/{name}.png", rng.integers(0, 255, (40, 60, 3), np.uint8))
        kind, stem = name.split("/")[1:]
        if kind == "spot":
            save(tmp_path / f"part/ground_truth/spot/{stem}_mask.png", RIGHT)
    return tmp_path / "part"


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_mask_drawn_on_the_image_as_it_is_stored(part, turn):
    """Where its sides tell, it is turned with the image; where they do not, that is remarked."""
    pixels = np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8)
    save(part / "test/spot/1.png", pixels, exif=turned(turn))
    source = folder.build(part.parent, "part", "test")
    record = source[source.paths.index(str(part / "test/spot/1.png"))]
    np.testing.assert_array_equal(record.image, upright(pixels, turn))
    is_certain = turn == 1 or turn >= 5
    np.testing.assert_array_equal(record.mask, upright(RIGHT, turn) if is_certain else RIGHT)
    lines = findings(source, 40)
    assert len(lines) == (0 if is_certain else 1)
    assert is_certain or "1 of 3 masks have no orientation tag" in lines[0]
    save(part / "ground_truth/spot/1_mask.png", RIGHT, exif=turned(turn))
    np.testing.assert_array_equal(source[2].mask, upright(RIGHT, turn))
    assert findings(source, 40) == []


def test_a_mask_that_fits_in_no_way_is_refused(part):
    save(part / "test/spot/1.png", np.zeros((40, 60, 3), np.uint8), exif=turned(3))
    save(part / "ground_truth/spot/1_mask.png", RIGHT.T)
    with pytest.raises(UserError, match=r"1_mask\.png' is 40 x 60 but its image .* is 60 x 40"):
        folder.build(part.parent, "part", "test")[2]


def test_findings_count_and_name_each_kind(part):
    assert findings(folder.build(part.parent, "part", "test"), 40) == []
    truth, spot = part / "ground_truth/spot", part / "test/spot"
    save(truth / "0_mask.png", ~RIGHT)
    save(truth / "1_mask.png", np.zeros((40, 60), bool))
    specks = np.zeros((40, 60), bool)
    specks[1, [1, 3, 31]] = True  # of these columns, the resize to 20 px keeps the 1st and the 3rd
    save(truth / "2_mask.png", specks)
    (part / "test/good/photo.heic").write_bytes(b"")
    (spot / "gone.png").symlink_to("nowhere.png")
    (truth / "outline.svg").write_text("")
    fit = "raise data.image_size, or measure with eval.mask_size='native'"
    assert findings(folder.build(part.parent, "part", "test"), 20) == [
        f"skipped files beside images or masks: 3 ({truth}/outline.svg, "
        f"{part}/test/good/photo.heic and 1 more): convert them to PNG, repair their links, or "
        "move them elsewhere",
        "1 of 3 masks mark nearly the whole image or all of its border "
        f"({truth}/0_mask.png): invert them if they are white where nothing is wrong",
        f"1 of 3 anomalous images have a mask that marks nothing ({spot}/1.png): correct the "
        "masks, as the images count as anomalous",
        f"at 20 px nothing is left of 1 of 4 separate defect regions ({spot}/2.png): {fit}",
    ]
    specks[1, [1, 31]] = False
    save(truth / "2_mask.png", specks)
    lines = findings(folder.build(part.parent, "part", "test"), 20)[-2:]
    assert lines[0] == (
        f"at 20 px nothing is left of the masks of 1 of 3 anomalous images ({spot}/2.png): {fit}"
    )
    assert "nothing is left of 1 of 2 separate defect regions" in lines[1]
    assert len(findings(folder.build(part.parent, "part", "test", masks="none"), 20)) == 1
    train = folder.build(part.parent, "part", "train")
    (part / "train/good/notes").write_text("")
    assert len(findings(train, 20)) == len(findings(Subset(train, np.array([0])), 20)) == 1


@pytest.mark.parametrize(
    ("place", "split"),
    [
        ("train/good/monday", "train"),
        ("test/dent/monday", "test"),
        ("train", "train"),
        ("train/bad", "train"),
        ("test", "test"),
        ("ground_truth", "test"),
    ],
)
def test_images_that_a_layout_passes_over_are_named(part, place, split):
    save(part / place / "0.png", RIGHT)
    (line,) = findings(folder.build(part.parent, "part", split), 40)
    named = f"images in folders that are not looked into: 1 ({part}/{place}/0.png)"
    assert line.startswith(named)


def test_masks_alone_are_those_of_the_records(part, monkeypatch):
    source = folder.build(part.parent, "part", "test")
    expected = [source[index].mask for index in range(len(source))]
    monkeypatch.setattr(_files, "read_image", None)  # no image is decoded
    found = native.read_masks(source)
    assert [mask.shape for mask in found] == [mask.shape for mask in expected]
    assert all(map(np.array_equal, found, expected))
    assert any(mask.any() for mask in found)


def test_findings_of_a_source_without_files():
    class Source:
        labels, has_masks, paths = np.array([0, 1]), True, ["a", "b"]

        def __getitem__(self, index):
            mask = np.zeros((40, 60), bool)
            mask[0, 0] = index == 1
            return Record(np.zeros((40, 60, 3), np.uint8), mask, index, "spot", self.paths[index])

    lines = findings(Source(), 20)
    assert "the masks of 1 of 1 anomalous images (b)" in lines[0]
    assert findings(Source(), 60)[:1] != lines[:1]


@pytest.mark.parametrize("name", list(layouts.ALL))
def test_sound_data_sets_give_no_findings(tmp_path, name):
    write, category = layouts.ALL[name]
    write(tmp_path)
    for split in ("train", "test"):
        assert findings(sources.build(name, tmp_path, category, split), 64) == []


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
