"""KolektorSDD2 as it is downloaded, with the stray files that copies of it hold."""

import logging

import numpy as np
import pytest
from PIL import Image

from configs import datasets
from flowad_jax.data import ksdd2, sources
from flowad_jax.errors import UserError
from tests.data.layouts_more import PART, SCRATCH, write_ksdd2


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "KolektorSDD2"
    write_ksdd2(path)
    return path


def names(source):
    return [path.split("/")[-1] for path in source.paths]


def test_training_leaves_out_defects_and_strays_and_says_so(root, caplog):
    with caplog.at_level(logging.INFO, "flowad_jax"):
        train = ksdd2.build(root, "", "train")
    assert names(train) == ["10000.png", "10001.png", "10003.png"]
    assert train.kinds == ["good"] * 3
    assert not train.has_masks
    assert not train[0].mask.any()
    strays, defects = (record.getMessage() for record in caplog.records)
    assert strays.startswith("passed over 4 stray files of ")
    assert strays.endswith("train', first '10001 (copy).png'")
    assert defects == "left out 1 of 4 training images, which have a defect"


def test_the_pixels_of_masks_are_the_labels(root, caplog):
    with caplog.at_level(logging.INFO, "flowad_jax"):
        test = ksdd2.build(root, "", "test")
    assert not caplog.records
    assert names(test) == [f"{number}.png" for number in range(20000, 20004)]
    assert test.kinds == ["defect", "good", "good", "defect"]
    assert test.labels.tolist() == [1, 0, 0, 1]
    assert test.has_masks
    np.testing.assert_array_equal(test[3].mask, SCRATCH > 0)
    assert not test[1].mask.any()
    assert test[1].image.shape == (*PART[::-1], 3)


def test_labels_stay_where_masks_are_ignored(root):
    test = ksdd2.build(root, "", "test", masks="none")
    assert not test.has_masks
    assert test.labels.tolist() == [1, 0, 0, 1]
    assert not test[0].mask.any()
    with pytest.raises(UserError, match=r"data\.options\.masks='some' is unknown"):
        ksdd2.build(root, "", "train", masks="some")


def test_the_threshold_counts_for_labels_too(root):
    faint = np.where(SCRATCH > 0, 9, 0).astype(np.uint8)
    Image.fromarray(faint).save(root / "test" / "20000_GT.png")
    assert ksdd2.build(root, "", "test").labels[0] == 1
    assert ksdd2.build(root, "", "test", mask_threshold=9).labels.tolist() == [0, 0, 0, 1]


def test_the_archives_folder_may_be_named_or_not(root):
    assert ksdd2.categories(root) == ksdd2.categories(root.parent) == [""]
    assert ksdd2.build(root, "", "test").paths == ksdd2.build(root.parent, "", "test").paths


def test_one_split_may_be_absent(root):
    for file in (root / "train").iterdir():
        file.unlink()
    (root / "train").rmdir()
    assert len(ksdd2.build(root, "", "test")) == 4
    with pytest.raises(UserError, match=r"no images '.*train/\[0-9\]\*\.png'.*\(expected {root}/"):
        sources.build("ksdd2", root, "", "train")


def all_defective(root):
    for number in range(10000, 10004):
        Image.fromarray(SCRATCH).save(root / "train" / f"{number}_GT.png")


def without_a_mask(root):
    (root / "train" / "10001_GT.png").unlink()  # its copy does not stand in for it


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_a_mask, r"train/10001\.png' has no mask '10001_GT\.png'"),
        (all_defective, "all 4 images of '.*train' have a defect"),
        (lambda r: (r / "train/10003_GT.png").write_bytes(b"\x89PNG"), r"read '.*10003_GT\.png'"),
        (lambda r: (r / "train/10003_GT.png").write_bytes(b""), r"read '.*10003_GT\.png'"),
        (lambda r: (r / "train").rename(r / "training"), "no images .*train"),
    ],
)
def test_damage_is_named(root, damage, message):
    damage(root)
    with pytest.raises(UserError, match=message) as caught:
        ksdd2.build(root, "", "train")
    assert "\n" not in str(caught.value)


def test_a_mask_of_another_size_names_both(root):
    Image.fromarray(SCRATCH[:50]).save(root / "test" / "20003_GT.png")
    with pytest.raises(UserError, match=r"20003_GT\.png' is 23 x 50 .*20003\.png' is 23 x 63"):
        ksdd2.build(root, "", "test")


@pytest.mark.parametrize(
    ("where", "category", "split", "message"),
    [
        ("", "train", "train", r"data\.category='train': ksdd2 has no categories, use ''"),
        ("", "..", "train", r"data\.category='\.\.': ksdd2 has no categories"),
        ("", "", "val", "split='val' is unknown"),
        ("train", "", "train", "train' has neither train nor test"),
        ("nowhere", "", "train", "has no 'nowhere'"),
    ],
)
def test_wrong_place(root, where, category, split, message):
    with pytest.raises(UserError, match=message):
        ksdd2.build(root / where, category, split)


def test_the_recipe_shows_the_options():
    assert datasets.options("ksdd2").to_dict() == ksdd2.build.__kwdefaults__
