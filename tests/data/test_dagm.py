"""DAGM as it is downloaded and as it is rearranged for SSNF."""

import numpy as np
import pytest
from PIL import Image

from configs import datasets
from flowad_jax.data import dagm
from flowad_jax.errors import UserError

SIZE = (12, 8)
DEFECT = np.zeros(SIZE[::-1], np.uint8)
DEFECT[1:3, 4:9] = 255
SPLITS = {"Train": (["0003", "0001", "0002"], ["0002"]), "Test": (["0001", "0002"], ["0001"])}


def put(path, pixels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(SIZE[::-1], 90, np.uint8) if pixels is None else pixels).save(path)


@pytest.fixture
def downloaded(tmp_path):
    """Two categories; one of three images to train on has a defect."""
    root = tmp_path / "DAGM2007"
    for category in ("Class2", "Class10"):
        for split, (stems, defects) in SPLITS.items():
            for stem in stems:
                put(root / category / split / f"{stem}.PNG")
            for stem in defects:
                put(root / category / split / "Label" / f"{stem}_label.PNG", DEFECT)
            (root / category / split / "Label" / "Labels.txt").write_text("1\n")
    return root


@pytest.fixture
def rearranged(tmp_path):
    root = tmp_path / "DAGM"
    for stem in ("0003", "0001"):
        put(root / "Class2" / "train" / "good" / f"{stem}.PNG")
    put(root / "Class2" / "train" / "bad" / "0002.PNG")
    put(root / "Class2" / "test" / "bad" / "0001.PNG")
    put(root / "Class2" / "test" / "good" / "0002.PNG")
    put(root / "Class2" / "ground_truth" / "bad" / "0001_label.PNG", DEFECT)
    return root


def names(source):
    return [path.split("/")[-1] for path in source.paths]


def test_defects_are_left_out_of_training(downloaded):
    source = dagm.build(downloaded, "Class2", "train")
    assert names(source) == ["0001.PNG", "0003.PNG"]
    assert source.kinds == ["good"] * 2
    assert not source.has_masks


def test_a_mask_tells_a_defect(downloaded):
    source = dagm.build(downloaded, "Class10", "test")
    assert names(source) == ["0001.PNG", "0002.PNG"]
    assert source.kinds == ["defect", "good"]
    assert source.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(source[0].mask, DEFECT > 0)
    assert not source[1].mask.any()
    blind = dagm.build(downloaded, "Class10", "test", masks="none")
    assert blind.labels.tolist() == [1, 0]
    assert not blind.has_masks


def test_both_layouts_give_the_same_records(downloaded, rearranged):
    for split in ("train", "test"):
        first = dagm.build(downloaded, "Class2", split)
        second = dagm.build(rearranged, "Class2", split)
        assert names(first) == names(second)
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.mask, b.mask)
            assert a.label == b.label
    assert second.kinds == ["bad", "good"]


def test_categories_are_in_the_order_of_their_numbers(downloaded, rearranged):
    assert dagm.categories(downloaded) == ["Class2", "Class10"]
    assert dagm.categories(rearranged) == ["Class2"]
    assert dagm.categories(downloaded.parent) == []
    assert len(dagm.CATEGORIES) == 10


@pytest.mark.parametrize("name", ["0001_mask.png", "0001.bmp", "0001_label.png"])
def test_masks_of_other_names_where_the_set_was_rearranged(rearranged, name):
    file = rearranged / "Class2/ground_truth/bad/0001_label.PNG"
    file.unlink()
    with pytest.raises(UserError, match=r"bad/0001\.PNG' has no mask.*data\.options\.masks"):
        dagm.build(rearranged, "Class2", "test")
    put(file.with_name(name), DEFECT)
    assert dagm.build(rearranged, "Class2", "test")[0].mask.sum() == 10


def test_a_mask_without_an_image_is_a_damaged_set(downloaded):
    (downloaded / "Class2/Train/0002.PNG").unlink()
    with pytest.raises(UserError, match=r"Label/0002_label\.PNG' has no image in '.*Train'"):
        dagm.build(downloaded, "Class2", "train")


def test_without_labels_defects_would_be_trained_on(downloaded):
    for file in (downloaded / "Class2/Train/Label").iterdir():
        file.unlink()
    (downloaded / "Class2/Train/Label").rmdir()
    with pytest.raises(UserError, match="Train/Label' is missing: only it tells the defects"):
        dagm.build(downloaded, "Class2", "train")


def test_nothing_but_defects(downloaded):
    for stem in ("0001", "0003"):
        (downloaded / f"Class2/Train/{stem}.PNG").unlink()
    with pytest.raises(UserError, match=r"no train images of 'Class2' in '.*DAGM2007'"):
        dagm.build(downloaded, "Class2", "train")


@pytest.mark.parametrize(
    ("where", "category", "split", "message"),
    [
        ("DAGM2007", "class2", "train", "DAGM has no category 'class2': did you mean 'Class2'"),
        ("DAGM2007", "", "train", "no category '': choices are Class1, Class10, Class2"),
        ("DAGM2007", "Class2", "val", "split='val' is unknown"),
        ("DAGM2007", "Class3", "train", "has no category 'Class3': .*it holds Class10, Class2"),
        ("DAGM2008", "Class2", "train", "has no 'DAGM2008': did you mean 'DAGM2007'"),
        ("DAGM/Class2", "Class2", "train", "holds train/ itself"),
    ],
)
def test_wrong_place(downloaded, rearranged, where, category, split, message):
    with pytest.raises(UserError, match=message) as caught:
        dagm.build(downloaded.parent / where, category, split)
    assert "\n" not in str(caught.value)


def test_a_wrong_rule_for_masks_is_named_at_once(downloaded):
    with pytest.raises(UserError, match=r"data\.options\.masks='some' is unknown"):
        dagm.build(downloaded, "Class2", "train", masks="some")


def test_the_recipe_shows_the_options():
    assert datasets.options("dagm").to_dict() == dagm.build.__kwdefaults__
