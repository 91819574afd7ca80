"""The MVTec shape of folders: what is found, in which order, and what bad input is told."""

import os

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import _files, folder, mvtec
from flowad_jax.errors import UserError


def put(path, size=(12, 10), value=90, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).convert(mode).save(path)
    return path


def put_mask(path, size=(12, 10)):
    pixels = np.zeros(size[::-1], np.uint8)
    pixels[2:4, 3:7] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """Mixed formats and sizes; a mask with the suffix and one without it."""
    top = tmp_path / "set"
    put(top / "nut/train/good/002.png")
    put(top / "nut/train/good/001.JPG", size=(7, 9))
    put(top / "nut/train/good/003.tif", mode="L")
    put(top / "nut/test/good/000.png")
    put(top / "nut/test/scratch/001.png")
    put(top / "nut/test/bent/000.bmp")
    put_mask(top / "nut/ground_truth/scratch/001_mask.png")
    put_mask(top / "nut/ground_truth/bent/000.png")
    (top / "nut/train/good/notes.txt").write_text("not an image")
    (top / "nut/train/good/._002.png").write_bytes(b"left by macOS")
    put(top / "bolt/train/good/000.png")
    return top


def test_train_is_good_and_sorted(root):
    source = folder.build(root, "nut", "train")
    assert [path.split("/")[-1] for path in source.paths] == ["001.JPG", "002.png", "003.tif"]
    assert source.kinds == ["good"] * 3
    assert not source.has_masks
    assert source[0].image.shape == (9, 7, 3)
    assert source[1].mask.shape == (10, 12)


def test_test_joins_images_with_masks(root):
    source = folder.build(root, "nut", "test")
    assert source.kinds == ["bent", "good", "scratch"]
    assert source.labels.tolist() == [1, 0, 1]
    assert [source[i].mask.sum() for i in range(3)] == [8, 0, 8]
    assert source[2].label == 1
    assert source.has_masks
    assert source.describe() == {
        "images": 3,
        "good": 1,
        "anomalous": 2,
        "masks": True,
        "kinds": {"bent": 1, "good": 1, "scratch": 1},
    }


def test_root_itself_is_a_category(root):
    assert len(folder.build(root / "nut", "", "train")) == 3
    assert folder.categories(root / "nut") == [""]
    assert folder.categories(root) == ["bolt", "nut"]


def test_normal_images_may_be_in_a_folder_of_another_name(root):
    for split in ("train", "test"):
        (root / "nut" / split / "good").rename(root / "nut" / split / "fine")
    train = folder.build(root, "nut", "train", normal="fine")
    assert set(train.kinds) == {"good"}
    test = folder.build(root, "nut", "test", normal="fine")
    assert "fine" not in test.kinds
    assert sum(test.labels == 0) == test.kinds.count("good") > 0
    with pytest.raises(UserError, match=r"no training images in '.*train/good'"):
        folder.build(root, "nut", "train")


def test_masks_are_optional(root):
    for file in (root / "nut/ground_truth").rglob("*.png"):
        file.unlink()
    source = folder.build(root, "nut", "test")
    assert not source.has_masks
    assert not source[0].mask.any()
    with pytest.raises(UserError, match="has no mask"):
        folder.build(root, "nut", "test", masks="require")


def test_one_missing_mask_is_an_error_unless_masks_are_off(root):
    (root / "nut/ground_truth/bent/000.png").unlink()
    with pytest.raises(UserError, match=r"bent/000\.bmp' has no mask.*data\.options\.masks"):
        folder.build(root, "nut", "test")
    assert not folder.build(root, "nut", "test", masks="none").has_masks


def test_masks_whose_names_match_nothing_are_no_missing_masks(root):
    for file in (root / "nut/ground_truth").rglob("*.png"):
        file.rename(file.with_name("other_name.png"))
    with pytest.raises(UserError, match="has no mask"):
        folder.build(root, "nut", "test")


def test_mask_of_another_size_names_both(root):
    put_mask(root / "nut/ground_truth/bent/000.png", size=(24, 20))
    with pytest.raises(UserError, match=r"000\.png' is 24 x 20 .*000\.bmp' is 12 x 10"):
        folder.build(root, "nut", "test")


def test_turned_mask_is_found_on_reading(root):
    put_mask(root / "nut/ground_truth/bent/000.png", size=(10, 12))
    source = folder.build(root, "nut", "test")
    with pytest.raises(UserError, match=r"000\.png' is 10 x 12 .*000\.bmp' is 12 x 10"):
        source[0]


def test_unreadable_mask_is_found_before_training(root):
    (root / "nut/ground_truth/bent/000.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"bent/000\.png"):
        folder.build(root, "nut", "test")


def test_truncated_image_names_the_file(root):
    file = root / "nut/train/good/002.png"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match=r"good/002\.png.*replace or remove"):
        folder.build(root, "nut", "train")[1]


@pytest.mark.parametrize(
    ("where", "category", "split", "message"),
    [
        ("sett", "nut", "train", r"has no 'sett': did you mean 'set'\? it holds set"),
        ("set/nut/deep/er", "", "train", "has no 'deep': it holds ground_truth, test, train"),
        ("", "nut", "train", r"data\.root is not set"),
        ("set", "nuts", "train", r"no category 'nuts': did you mean 'nut'\? it holds bolt, nut"),
        ("set", "", "train", "category is not set: choose one of bolt, nut"),
        ("set/nut", "nut", "train", "holds train/ itself, use ''"),
        ("set", "nut", "valid", r"split='valid' is unknown"),
        ("set", "bolt", "test", "no test images in .*bolt/test"),
        ("set/nut/train/good/002.png", "nut", "train", "is a file, not a folder"),
    ],
)
def test_wrong_place(root, where, category, split, message):
    with pytest.raises(UserError, match=message) as caught:
        folder.build(where and root.parent / where, category, split)
    assert "\n" not in str(caught.value)


def test_listing_names_what_is_no_image(root):
    """Nothing in a folder of images disappears without a word."""
    good = root / "nut/train/good"
    for name in ("photo.heic", "no_suffix", "Thumbs.db", "desktop.ini"):
        (good / name).write_bytes(b"")
    (good / "broken.png").symlink_to(good / "gone.png")
    (good / "linked.png").symlink_to(good / "002.png")
    os.mkfifo(good / "pipe.png")
    (good / "folder.png").mkdir()
    images, skipped = _files.listing(good)
    assert [p.name for p in images] == ["001.JPG", "002.png", "003.tif", "linked.png"]
    names = ["broken.png", "no_suffix", "notes.txt", "photo.heic", "pipe.png"]
    assert [p.name for p in skipped] == names
    assert _files.images(good) == images
    assert _files.listing(good, (".png",))[0] == images[1::2]
    assert _files.listing(good / "none") == ([], [])


def test_empty_category(root):
    (root / "void/train/good").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no training images in '.*void/train/good'"):
        folder.build(root, "void", "train")
    (root / "bare").mkdir()
    with pytest.raises(UserError, match=r"no training images in '.*bare/train/good'"):
        folder.build(root, "bare", "train")
    with pytest.raises(UserError, match=r"data\.options\.masks='maybe' is unknown"):
        folder.build(root, "nut", "test", masks="maybe")


def test_folder_that_may_not_be_listed(root, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(UserError, match=r"cannot list '.*train/good': Permission denied"):
        folder.build(root, "nut", "train")


def test_mvtec_knows_its_categories(root):
    (root / "nut").rename(root / "metal_nut")
    assert mvtec.categories(root) == ["metal_nut"]
    assert len(mvtec.build(root, "metal_nut", "test")) == 3
    with pytest.raises(UserError, match="no category 'metalnut': did you mean 'metal_nut'"):
        mvtec.build(root, "metalnut", "train")
    with pytest.raises(UserError, match="no category 'zipper'"):
        mvtec.build(root, "zipper", "train")
    assert len(mvtec.CATEGORIES) == 15
