"""MVTec LOCO AD: a folder of masks for each image, and a split for thresholds."""

import shutil

import numpy as np
import pytest
from PIL import Image

from configs import datasets
from flowad_jax.data import mvtec_loco, sources
from flowad_jax.errors import UserError
from tests.data import layouts

CATEGORY = "breakfast_box"
MASKS = "breakfast_box/ground_truth/logical_anomalies/000"


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "mvtec_loco"
    layouts.write_mvtec_loco(path)
    return path


def names(source):
    return ["/".join(path.split("/")[-2:]) for path in source.paths]


def test_the_three_splits(root):
    train = mvtec_loco.build(root, CATEGORY, "train")
    assert names(train) == [f"good/00{i}.png" for i in range(4)]
    validation = mvtec_loco.build(root, CATEGORY, mvtec_loco.ABOUT.validation)
    assert names(validation) == ["good/000.png", "good/001.png"]
    assert all("/validation/" in path for path in validation.paths)
    test = mvtec_loco.build(root, CATEGORY, "test")
    assert test.kinds == ["good", "good", "logical_anomalies", "structural_anomalies"]
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert not train.has_masks
    assert not validation.has_masks


def test_a_mask_is_the_union_of_its_files_whatever_their_grey(root):
    source = mvtec_loco.build(root, CATEGORY, "test")
    np.testing.assert_array_equal(source[2].mask, layouts.DEFECT)
    np.testing.assert_array_equal(source[3].mask, layouts.DEFECT)
    assert not source[0].mask.any()
    half = mvtec_loco.build(root, CATEGORY, "test", mask_threshold=200)
    np.testing.assert_array_equal(half[2].mask, layouts.halves()[1])
    layouts.mask(root / MASKS / "001.png", value=1, pixels=layouts.halves()[1])
    faint = mvtec_loco.build(root, CATEGORY, "test")
    np.testing.assert_array_equal(faint[2].mask, layouts.DEFECT)


@pytest.mark.parametrize("remove", [shutil.rmtree, lambda f: [p.unlink() for p in f.iterdir()]])
def test_missing_masks_are_named_unless_masks_are_off(root, remove):
    remove(root / MASKS)
    with pytest.raises(UserError, match=r"logical_anomalies/000\.png' has no mask"):
        mvtec_loco.build(root, CATEGORY, "test")
    assert not mvtec_loco.build(root, CATEGORY, "test", masks="none").has_masks
    with pytest.raises(UserError, match=r"data\.options\.masks='some' is unknown"):
        mvtec_loco.build(root, CATEGORY, "train", masks="some")


def test_one_of_several_masks_is_damaged_or_of_another_size(root):
    Image.new("L", (5, 4)).save(root / MASKS / "001.png")
    with pytest.raises(UserError, match=r"000/001\.png' is 5 x 4 .*000\.png' is 64 x 48"):
        mvtec_loco.build(root, CATEGORY, "test")
    (root / MASKS / "001.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"cannot read '.*000/001\.png'"):
        mvtec_loco.build(root, CATEGORY, "test")


@pytest.mark.parametrize(
    ("split", "folder"),
    [
        ("train", "train/good"),
        ("validation", "validation/good"),
        ("test", "test/good"),
        ("test", "test/logical_anomalies"),
    ],
)
def test_a_part_that_is_missing_is_told_with_the_layout(root, split, folder):
    shutil.rmtree(root / CATEGORY / folder)
    with pytest.raises(UserError, match=rf"no images in '.*{folder}': .*\(expected {{root}}/") as e:
        sources.build("mvtec_loco", root, CATEGORY, split)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("where", "category", "split", "message"),
    [
        ("", "screwbag", "train", "has no category 'screwbag': did you mean 'screw_bag'"),
        ("", "", "train", "no category '': choices are breakfast_box, juice_bottle"),
        ("", "../mvtec_loco", "train", r"no category '\.\./mvtec_loco'"),
        ("", CATEGORY, "valid", "split='valid' is unknown: did you mean 'validation'"),
        ("", "pushpins", "train", "has no category 'pushpins': it holds breakfast_box"),
        (CATEGORY, CATEGORY, "train", "holds train/ itself"),
        ("nowhere", CATEGORY, "train", "has no 'nowhere'"),
    ],
)
def test_wrong_place(root, where, category, split, message):
    with pytest.raises(UserError, match=message) as caught:
        mvtec_loco.build(root / where, category, split)
    assert "\n" not in str(caught.value)


def test_categories_that_are_present(root):
    (root / "other" / "train").mkdir(parents=True)
    assert mvtec_loco.categories(root) == [CATEGORY]


def test_the_recipe_shows_the_options():
    assert datasets.options("mvtec_loco").to_dict() == mvtec_loco.build.__kwdefaults__
