"""What is special about single data sets of folders, beside the laws that hold for all."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import sources
from flowad_jax.data.record import count
from flowad_jax.errors import UserError
from tests.data import layouts


@pytest.fixture
def root(tmp_path, request):
    """The small copy of the data set that the name of the test begins with."""
    names = [n for n in layouts.ALL if request.node.name.startswith(f"test_{n}")]
    name = max(names, key=len)
    layouts.ALL[name][0](tmp_path / "root")
    return tmp_path / "root"


def build(name, root, split="test", **options):
    return sources.build(name, root, layouts.ALL[name][1], split, **options)


def names(source):
    return [path.split("/")[-1] for path in source.paths]


# --- BTAD ---


def test_btad_calls_normal_images_good(root):
    assert build("btad", root).kinds == ["ko"] * 2 + ["good"] * 2
    for file in root.rglob("*.bmp"):
        file.unlink()
    with pytest.raises(UserError, match=r"no test images in '.*03/test': put some into test/ok"):
        build("btad", root)


# --- DAGM ---


def rearrange(root):
    """The layout of SSNF, with a defect beside the images to train on."""
    old, new = root / "Class1", root / "new" / "Class1"
    for split, kind, count_ in (("Train", "train", 5), ("Test", "test", 4)):
        for index in range(count_):
            mask = old / split / "Label" / f"{index:04}_label.PNG"
            place = new / kind / ("bad" if mask.is_file() else "good")
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(old / split / f"{index:04}.PNG", place)
            if mask.is_file() and kind == "test":
                (new / "ground_truth/bad").mkdir(parents=True, exist_ok=True)
                shutil.copy(mask, new / "ground_truth/bad")
    return root / "new"


def test_dagm_is_the_same_in_both_layouts(root):
    new = rearrange(root)
    assert sources.categories("dagm", new) == ["Class1"]
    for split in ("train", "test"):
        first, second = build("dagm", root, split), build("dagm", new, split)
        assert sorted(names(first)) == sorted(names(second))
        assert sorted(first.labels) == sorted(second.labels)
        for record in second:
            np.testing.assert_array_equal(record.mask, layouts.DEFECT * bool(record.label))
    assert names(build("dagm", root, "train")) == ["0000.PNG", "0001.PNG", "0003.PNG", "0004.PNG"]
    assert (first.kinds[0], second.kinds[0]) == ("defect", "bad")


@pytest.mark.parametrize("name", ["0000_mask.png", "0000.bmp", "0000_label.png"])
def test_dagm_masks_of_other_names_where_the_set_was_rearranged(root, name):
    new = rearrange(root)
    file = new / "Class1/ground_truth/bad/0000_label.PNG"
    file.unlink()
    with pytest.raises(UserError, match=r"bad/0000\.PNG' has no mask.*data\.options\.masks"):
        build("dagm", new)
    layouts.mask(file.with_name(name))
    np.testing.assert_array_equal(build("dagm", new)[0].mask, layouts.DEFECT)


def test_dagm_categories_are_in_the_order_of_their_numbers(root):
    for number in (10, 2):
        shutil.copytree(root / "Class1", root / f"Class{number}")
    assert sources.categories("dagm", root) == ["Class1", "Class2", "Class10"]


def test_dagm_is_damaged_where_only_one_of_image_and_mask_is_there(root):
    (root / "Class1/Train/0002.PNG").unlink()
    with pytest.raises(UserError, match=r"Label/0002_label\.PNG' has no image in '.*Train'"):
        build("dagm", root, "train")


def test_dagm_with_nothing_but_defects(root):
    for index in (0, 1, 3, 4):
        (root / f"Class1/Train/{index:04}.PNG").unlink()
    with pytest.raises(UserError, match=r"no train images of 'Class1' in '.*root'"):
        build("dagm", root, "train")


# --- KolektorSDD2 ---


def test_ksdd2_training_leaves_out_defects_and_strays_and_says_so(root, caplog):
    with caplog.at_level(logging.INFO, "flowad_jax"):
        train = build("ksdd2", root, "train")
    assert names(train) == ["10000.png", "10001.png", "10003.png", "10004.png"]
    strays, defects = (record.getMessage() for record in caplog.records)
    assert strays.startswith("passed over 4 stray files of ")
    assert strays.endswith("train', first '10001 (copy).png'")
    assert defects == "left out 1 of 5 training images, which have a defect"
    caplog.clear()
    with caplog.at_level(logging.INFO, "flowad_jax"):
        assert build("ksdd2", root).kinds == ["defect", "good", "good", "defect"]
    assert not caplog.records


def test_ksdd2_threshold_counts_for_labels_too(root):
    layouts.mask(root / "KolektorSDD2/test/20000_GT.png", value=9)
    assert build("ksdd2", root).labels[0] == 1
    assert build("ksdd2", root, mask_threshold=9).labels.tolist() == [0, 0, 0, 1]


def test_ksdd2_with_one_split_alone(root):
    shutil.rmtree(root / "KolektorSDD2/train")
    assert len(build("ksdd2", root)) == 4
    with pytest.raises(UserError, match=r"no images '.*train/\[0-9\]\*\.png'"):
        build("ksdd2", root, "train")
    shutil.rmtree(root / "KolektorSDD2/test")
    with pytest.raises(UserError, match="KolektorSDD2' has neither train nor test"):
        build("ksdd2", root)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, r"10001\.png' has no mask '10001_GT\.png'"),  # a copy does not stand in
        (lambda file: file.write_bytes(b"\x89PNG"), r"cannot read '.*10001_GT\.png'"),
        (
            lambda file: [layouts.mask(f) for f in file.parent.glob("*_GT.png")],
            "all 5 images of '.*train' have a defect: none to train on",
        ),
    ],
)
def test_ksdd2_damage_is_named(root, damage, message):
    damage(root / "KolektorSDD2/train/10001_GT.png")
    with pytest.raises(UserError, match=message):
        build("ksdd2", root, "train")


# --- magnetic tile ---


def test_magnetic_tile_tests_every_fifth_free_image(root):
    free = sorted(path.name for path in (root / "MT_Free/Imgs").iterdir())
    test = build("magnetic_tile", root)
    assert test.kinds == ["MT_Blowhole", "MT_Crack", "good", "good"]
    assert names(test)[2:] == free[::5]
    assert names(build("magnetic_tile", root, "train")) == [*free[1:5]]
    assert names(build("magnetic_tile", root, "train", test_every=2)) == free[1::2]
    with pytest.raises(UserError, match=r"data\.options\.test_every=1: must be 2 or more"):
        build("magnetic_tile", root, test_every=1)
    for name in free[1:]:
        (root / "MT_Free/Imgs" / name).unlink()
    with pytest.raises(UserError, match="too few images for a train split"):
        build("magnetic_tile", root, "train")


def test_magnetic_tile_black_masks_of_free_images_are_passed_over(root):
    before = build("magnetic_tile", root).paths
    for file in list((root / "MT_Free/Imgs").iterdir()):
        Image.new("L", (3, 3)).save(file.with_suffix(".png"))
    assert build("magnetic_tile", root).paths == before


# --- MVTec AD 2 ---


@pytest.mark.parametrize(("split", "number"), [("test_private", 2), ("test_private_mixed", 3)])
def test_mvtec_ad2_labels_of_private_images_are_unknown(root, split, number):
    """A mask of a public image is none of a private one of its name."""
    source = build("mvtec_ad2", root, split)
    assert "000_regular.png" in names(source)
    assert source.labels.tolist() == [-1] * number
    assert source.kinds == ["unknown"] * number
    assert not source.has_masks
    assert count(source)["good"] == count(source)["anomalous"] == 0
    assert source[0].label == -1
    assert not source[0].mask.any()


# --- MVTec LOCO AD ---


def test_mvtec_loco_masks_are_the_union_of_files_whatever_their_grey(root):
    half = build("mvtec_loco", root, mask_threshold=200)
    np.testing.assert_array_equal(half[2].mask, layouts.halves()[1])
    folder = root / "breakfast_box/ground_truth/logical_anomalies/000"
    layouts.mask(folder / "001.png", value=1, pixels=layouts.halves()[1])
    np.testing.assert_array_equal(build("mvtec_loco", root)[2].mask, layouts.DEFECT)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"logical_anomalies/000\.png' has no mask"):
        build("mvtec_loco", root)
