"""MVTec AD 2: masks inside the public test set, and images that nobody publishes labels of."""

import shutil

import numpy as np
import pytest
from PIL import Image

from configs import datasets
from flowad_jax.data import mvtec_ad2, sources
from flowad_jax.errors import UserError
from tests.data import layouts

CATEGORY = "can"
MASK = "can/test_public/ground_truth/bad/000_regular_mask.png"


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "mvtec_ad_2"
    layouts.write_mvtec_ad2(path)
    return path


def names(source):
    return [path.split("/")[-1] for path in source.paths]


def test_normal_splits(root):
    train = mvtec_ad2.build(root, CATEGORY, "train")
    assert names(train) == [f"00{i}_regular.png" for i in range(4)]
    validation = mvtec_ad2.build(root, CATEGORY, mvtec_ad2.ABOUT.validation)
    assert names(validation) == ["000_regular.png", "001_regular.png"]
    assert all("/validation/good/" in path for path in validation.paths)
    assert set(train.kinds) == set(validation.kinds) == {"good"}
    assert not train.has_masks


def test_the_masks_of_the_public_test_set_are_no_kind_of_defect(root):
    test = mvtec_ad2.build(root, CATEGORY, "test")
    assert test.kinds == ["bad", "bad", "good", "good"]
    assert names(test)[:2] == ["000_overexposed.png", "000_regular.png"]
    assert test.labels.tolist() == [1, 1, 0, 0]
    np.testing.assert_array_equal(test[0].mask, layouts.DEFECT)
    np.testing.assert_array_equal(test[1].mask, layouts.DEFECT)
    assert not test[2].mask.any()


@pytest.mark.parametrize(("split", "count"), [("test_private", 2), ("test_private_mixed", 3)])
def test_nobody_publishes_the_labels_of_private_images(root, split, count):
    source = mvtec_ad2.build(root, CATEGORY, split)
    assert source.labels.tolist() == [-1] * count
    assert source.kinds == ["unknown"] * count
    assert all(f"/{split}/" in path for path in source.paths)
    assert not source.has_masks
    assert source.describe()["good"] == source.describe()["anomalous"] == 0
    assert source[0].label == -1
    assert not source[0].mask.any()


def test_a_mask_of_a_public_image_is_none_of_a_private_one_of_its_name(root):
    private = mvtec_ad2.build(root, CATEGORY, "test_private")
    assert "000_regular.png" in names(private)
    assert not private.has_masks


def test_missing_masks_are_named_unless_masks_are_off(root):
    (root / MASK).rename((root / MASK).with_name("000_regular.png"))
    with pytest.raises(UserError, match=r"bad/000_regular\.png' has no mask"):
        mvtec_ad2.build(root, CATEGORY, "test")
    assert not mvtec_ad2.build(root, CATEGORY, "test", masks="none").has_masks
    for split in ("train", "test_private"):
        with pytest.raises(UserError, match=r"data\.options\.masks='some' is unknown"):
            mvtec_ad2.build(root, CATEGORY, split, masks="some")


def test_a_mask_of_another_size_or_damaged(root):
    Image.new("L", (5, 4)).save(root / MASK)
    with pytest.raises(UserError, match=r"regular_mask\.png' is 5 x 4 .*regular\.png' is 64 x 48"):
        mvtec_ad2.build(root, CATEGORY, "test")
    (root / MASK).write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read '.*000_regular_mask\.png'"):
        mvtec_ad2.build(root, CATEGORY, "test")


def test_threshold(root):
    layouts.mask(root / MASK, value=90)
    assert mvtec_ad2.build(root, CATEGORY, "test")[1].mask.any()
    assert not mvtec_ad2.build(root, CATEGORY, "test", mask_threshold=127)[1].mask.any()


@pytest.mark.parametrize(
    ("split", "folder"),
    [
        ("train", "train/good"),
        ("validation", "validation/good"),
        ("test", "test_public/good"),
        ("test", "test_public/bad"),
        ("test_private", "test_private"),
        ("test_private_mixed", "test_private_mixed"),
    ],
)
def test_a_part_that_is_missing_is_told_with_the_layout(root, split, folder):
    shutil.rmtree(root / CATEGORY / folder)
    with pytest.raises(UserError, match=rf"no images in '.*{folder}': .*\(expected {{root}}/") as e:
        sources.build("mvtec_ad2", root, CATEGORY, split)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("where", "category", "split", "message"),
    [
        ("", "walnut", "train", "has no category 'walnut': did you mean 'walnuts'"),
        ("", "", "train", "no category '': choices are can, fabric"),
        ("", CATEGORY, "test_public", "split='test_public' is unknown"),
        ("", "rice", "train", "has no category 'rice': it holds can"),
        (CATEGORY, CATEGORY, "train", "holds train/ itself"),
        ("nowhere", CATEGORY, "train", "has no 'nowhere'"),
    ],
)
def test_wrong_place(root, where, category, split, message):
    with pytest.raises(UserError, match=message) as caught:
        mvtec_ad2.build(root / where, category, split)
    assert "\n" not in str(caught.value)


def test_categories_that_are_present(root):
    (root / "bottle" / "train").mkdir(parents=True)
    assert mvtec_ad2.categories(root) == [CATEGORY]
    assert len(mvtec_ad2.CATEGORIES) == 8


def test_the_recipe_shows_the_options():
    assert datasets.options("mvtec_ad2").to_dict() == mvtec_ad2.build.__kwdefaults__
