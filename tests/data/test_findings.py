"""What is doubtful about the files of a data set is named, with what to do; sound sets are not."""

import numpy as np
import pytest

from flowad_jax.data import sources
from flowad_jax.data.findings import findings
from flowad_jax.data.layout import FileSource
from flowad_jax.data.record import Record
from flowad_jax.data.sets import folder
from flowad_jax.data.subset import Subset
from flowad_jax.errors import UserError
from flowad_jax.evaluation import mask_resolution
from tests.data import layouts
from tests.data.image_files import upright
from tests.data.test_masks import RIGHT, save, turned


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
    monkeypatch.setattr(FileSource, "__getitem__", None)  # no image is decoded
    found = mask_resolution.read_masks(source)
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
