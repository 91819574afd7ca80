"""The shape of MVTec AD: what is found in folders, in which order, and what bad input is told."""

import os

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import layout, sources
from flowad_jax.errors import UserError


def put(path, size=(12, 10), value=90, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).convert(mode).save(path)


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


def build(root, category="nut", split="test", **options):
    return sources.build("folder", root, category, split, **options)


def test_mixed_formats_and_sizes(root):
    train, test = build(root, split="train"), build(root)
    assert [path.split("/")[-1] for path in train.paths] == ["001.JPG", "002.png", "003.tif"]
    assert train[0].image.shape == (9, 7, 3)
    assert train[1].mask.shape == (10, 12)
    assert test.kinds == ["bent", "good", "scratch"]
    assert [test[i].mask.sum() for i in range(3)] == [8, 0, 8]


def test_the_root_itself_is_a_category(root):
    assert len(build(root / "nut", "", "train")) == 3
    assert sources.categories("folder", root / "nut") == [""]
    assert sources.categories("folder", root) == ["bolt", "nut"]


def test_normal_images_may_be_in_a_folder_of_another_name(root):
    for split in ("train", "test"):
        (root / "nut" / split / "good").rename(root / "nut" / split / "fine")
    assert set(build(root, split="train", normal="fine").kinds) == {"good"}
    assert build(root, normal="fine").kinds == ["bent", "good", "scratch"]
    with pytest.raises(UserError, match=r"no training images in '.*train/good'"):
        build(root, split="train")


def test_masks_are_all_there_or_none(root):
    truth = root / "nut/ground_truth"
    (truth / "bent/000.png").rename(truth / "bent/other_name.png")
    (truth / "scratch/001_mask.png").unlink()
    with pytest.raises(UserError, match="has no mask"):  # a name that matches nothing is a mistake
        build(root)
    (truth / "bent/other_name.png").unlink()
    assert not build(root).has_masks
    with pytest.raises(UserError, match=r"bent/000\.bmp' has no mask.*data\.options\.masks"):
        build(root, masks="require")


@pytest.mark.parametrize("name", ["{}.png", "{}_mask.png", "{}_mask.BMP", "{}.PNG", "{}.jpg"])
def test_names_and_formats_of_masks(root, name):
    put_mask(root / "nut/ground_truth/bent" / name.format("000"))
    assert build(root, mask_threshold=127)[0].mask.sum() == 8


@pytest.mark.parametrize(
    ("where", "category", "split", "message"),
    [
        ("sett", "nut", "train", r"has no 'sett': did you mean 'set'\? it holds set"),
        ("set/nut/deep/er", "", "train", "has no 'deep': it holds ground_truth, test, train"),
        ("set", "nuts", "train", r"no category 'nuts': did you mean 'nut'\? it holds bare, bolt"),
        ("set", "", "train", "category is not set: choose one of bolt, nut"),
        ("set/nut", "nut", "train", "holds train/ itself, use ''"),
        ("set/nut/train/good", "nut", "train", "no category 'nut': it has no subfolders"),
        ("set", "void", "train", r"no training images in '.*void/train/good': put the normal"),
        ("set", "bare", "train", r"no training images in '.*bare/train/good'"),
        ("set/nut/train/good/002.png", "nut", "train", "data.category='nut': data.root"),
    ],
)
def test_wrong_place(root, where, category, split, message):
    (root / "void/train/good").mkdir(parents=True)
    (root / "bare").mkdir()
    with pytest.raises(UserError, match=message):
        build(where and root.parent / where, category, split)


def test_a_listing_names_what_is_no_image(root):
    """Nothing in a folder of images disappears without a word."""
    good = root / "nut/train/good"
    for name in ("photo.heic", "no_suffix", "Thumbs.db", "desktop.ini"):
        (good / name).write_bytes(b"")
    (good / "broken.png").symlink_to(good / "gone.png")
    (good / "linked.png").symlink_to(good / "002.png")
    os.mkfifo(good / "pipe.png")
    (good / "folder.png").mkdir()
    images, skipped = layout.listing(good)
    assert [p.name for p in images] == ["001.JPG", "002.png", "003.tif", "linked.png"]
    names = ["broken.png", "no_suffix", "notes.txt", "photo.heic", "pipe.png"]
    assert [p.name for p in skipped] == names
    assert layout.images(good) == images
    assert layout.listing(good, (".png",))[0] == images[1::2]
    assert layout.listing(good / "none") == ([], [])


def test_folders_whose_skipped_files_are_worth_a_word(root):
    truth, test = root / "nut/ground_truth", root / "nut/test"
    (test / "empty").mkdir()
    kinds = [test / kind for kind in ("bent", "empty", "good", "scratch")]
    assert build(root).folders == [truth / "bent", truth / "scratch", *kinds]
    assert build(root, masks="none").folders == kinds
    assert build(root, split="train").folders == [root / "nut/train/good"]


def test_a_folder_that_may_not_be_listed(root, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(UserError, match=r"cannot list '.*nut': Permission denied"):
        build(root, split="train")


def test_files_that_tables_name_stay_in_their_folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "in/a.png"):
        (tmp_path / name).write_bytes(b"")
    found = layout.file_below(tmp_path / "in", "here", "./a.png", "mend it")
    assert found == tmp_path / "in" / "a.png"
    for name in ("../a.png", "x/../../a.png", str(tmp_path / "a.png"), "", "."):
        with pytest.raises(UserError, match=r"here: .* is no path of a file below '.*': mend it$"):
            layout.file_below(tmp_path / "in", "here", name, "mend it")
    for name in ("b.png", "\0", "x" * 5000):
        with pytest.raises(UserError, match=r"here: '.*in' has no file '.*': unpack"):
            layout.file_below(tmp_path / "in", "here", name, "mend it")
    with pytest.raises(UserError, match=r"has no file 'b': look again$"):
        layout.file_below(tmp_path, "here", "b", "mend it", "look again")
