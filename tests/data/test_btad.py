"""BTAD as its archive unpacks, with the names and formats that its copies give to masks."""

import numpy as np
import pytest
from PIL import Image

from configs import datasets
from flowad_jax.data import btad
from flowad_jax.errors import UserError

SIZE = (12, 8)
DEFECT = np.zeros(SIZE[::-1], np.uint8)
DEFECT[1:3, 4:9] = 255


def put(path, pixels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(SIZE[::-1], 90, np.uint8) if pixels is None else pixels).save(path)


def write(root, category, image_suffix, mask_name):
    """Three images to train on, one good and two anomalous ones to test."""
    folder = root / category
    for stem in ("0002", "0000", "0001"):
        put(folder / "train" / "ok" / f"{stem}{image_suffix}")
    put(folder / "test" / "ok" / f"0000{image_suffix}")
    for stem in ("0000", "0004"):
        put(folder / "test" / "ko" / f"{stem}{image_suffix}")
        put(folder / "ground_truth" / "ko" / mask_name.format(stem), DEFECT)


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "BTech_Dataset_transformed"
    write(path, "01", ".bmp", "{}.png")
    write(path, "02", ".png", "{}.png")
    write(path, "03", ".bmp", "{}.bmp")
    return path


def names(source):
    return ["/".join(path.split("/")[-2:]) for path in source.paths]


@pytest.mark.parametrize("category", btad.CATEGORIES)
def test_every_category_has_its_formats(root, category):
    suffix = ".png" if category == "02" else ".bmp"
    train = btad.build(root, category, "train")
    assert names(train) == [f"ok/000{i}{suffix}" for i in range(3)]
    assert train.kinds == ["good"] * 3
    assert not train.has_masks
    test = btad.build(root, category, "test")
    assert names(test) == [f"ko/0000{suffix}", f"ko/0004{suffix}", f"ok/0000{suffix}"]
    assert test.kinds == ["ko", "ko", "good"]
    assert test.labels.tolist() == [1, 1, 0]
    np.testing.assert_array_equal(test[1].mask, DEFECT > 0)
    assert not test[2].mask.any()


def test_the_archives_folder_may_be_named_or_not(root):
    assert btad.categories(root) == btad.categories(root.parent) == ["01", "02", "03"]
    one, other = btad.build(root, "01", "test"), btad.build(root.parent, "01", "test")
    assert one.paths == other.paths


@pytest.mark.parametrize("name", ["{}_mask.png", "{}.jpg", "{}_mask.BMP", "{}.PNG"])
def test_masks_of_other_names_and_formats(tmp_path, name):
    write(tmp_path, "02", ".png", name)
    source = btad.build(tmp_path, "02", "test", mask_threshold=127)
    np.testing.assert_array_equal(source[0].mask, DEFECT > 127)


def test_a_missing_mask_is_named_unless_masks_are_off(root):
    (root / "03/ground_truth/ko/0004.bmp").unlink()
    with pytest.raises(UserError, match=r"ko/0004\.bmp' has no mask.*data\.options\.masks"):
        btad.build(root, "03", "test")
    assert not btad.build(root, "03", "test", masks="none").has_masks
    with pytest.raises(UserError, match=r"data\.options\.masks='some' is unknown"):
        btad.build(root, "03", "test", masks="some")


def test_a_mask_of_another_size_names_both(root):
    put(root / "01/ground_truth/ko/0000.png", DEFECT[:5])
    with pytest.raises(UserError, match=r"0000\.png' is 12 x 5 .*0000\.bmp' is 12 x 8"):
        btad.build(root, "01", "test")


@pytest.mark.parametrize(
    ("where", "category", "split", "message"),
    [
        ("", "1", "train", "BTAD has no category '1': did you mean '01'"),
        ("", "", "train", "no category '': choices are 01, 02, 03"),
        ("", "01", "val", "split='val' is unknown"),
        ("01", "01", "train", "01' holds train/ itself, use ''"),
        ("nowhere", "01", "train", "has no 'nowhere'"),
        ("", "02", "train", r"no training images in '.*02/train/ok'"),
        ("", "02", "test", "no test images in '.*02/test': put some into test/ok and test/KIND"),
    ],
)
def test_wrong_place(root, where, category, split, message):
    for file in (root / "02").rglob("*.png"):
        file.unlink()
    with pytest.raises(UserError, match=message) as caught:
        btad.build(root / where, category, split)
    assert "\n" not in str(caught.value)


def test_the_recipe_shows_the_options():
    assert datasets.options("btad").to_dict() == btad.build.__kwdefaults__
