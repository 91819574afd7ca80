"""Real-IAD: lists of files by category, views, and lists whose training images have defects."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from configs import datasets
from flowad_jax.data import real_iad, sources
from flowad_jax.errors import UserError
from tests.data import layouts

CATEGORY = "audiojack"
LIST = "realiad_jsons/realiad_jsons/audiojack.json"
OK, NG = layouts.real_iad_item(3, "OK", "C1"), layouts.real_iad_item(4, "AK", "C1")


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "Real-IAD"
    layouts.write_real_iad(path)
    return path


def change(root, **sections):
    """Rewrites the list with other sections."""
    content = json.loads((root / LIST).read_text()) | sections
    (root / LIST).write_text(json.dumps(content))


def names(source):
    return [path.split("audiojack/", 1)[1] for path in source.paths]


def test_splits_follow_the_list(root):
    train = real_iad.build(root, CATEGORY, "train")
    assert train.kinds == ["good"] * 4
    assert not train.has_masks
    test = real_iad.build(root, CATEGORY, "test")
    assert names(test)[0] == NG["image_path"]
    assert names(test)[2] == OK["image_path"]
    assert test.kinds == ["AK", "AK", "good", "good"]
    assert test.labels.tolist() == [1, 1, 0, 0]
    np.testing.assert_array_equal(test[1].mask, layouts.DEFECT)
    assert not test[2].mask.any()
    assert real_iad.categories(root) == [CATEGORY]


def test_the_order_of_the_list_does_not_matter(root):
    before = real_iad.build(root, CATEGORY, "test").paths
    content = json.loads((root / LIST).read_text())
    change(root, test=content["test"][::-1])
    assert real_iad.build(root, CATEGORY, "test").paths == before


def test_one_view(root):
    test = real_iad.build(root, CATEGORY, "test", views="C2")
    assert len(test) == 2
    assert all("_C2_" in path for path in test.paths)
    with pytest.raises(UserError, match=r"has no train images of the view C5.*\(expected {root}"):
        sources.build("real_iad", root, CATEGORY, "train", views="C5")
    with pytest.raises(UserError, match=r"data\.options\.views='C6' is unknown"):
        real_iad.build(root, CATEGORY, "test", views="C6")
    folder = root / "realiad_1024" / CATEGORY
    shutil.copy(folder / OK["image_path"], folder / "OK/plain.jpg")
    change(root, test=[{**OK, "image_path": "OK/plain.jpg"}])
    assert len(real_iad.build(root, CATEGORY, "test")) == 1
    with pytest.raises(UserError, match=r"test\[0\]: the name 'plain\.jpg' tells no view"):
        real_iad.build(root, CATEGORY, "test", views="C1")


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("splits", ["realiad_jsons", "realiad_jsons_sv", "realiad_jsons_fuiad_0.1"])
def test_lists_lie_in_the_root_or_in_the_folder_of_all_lists(root, splits, nested):
    content = (root / LIST).read_text()
    shutil.rmtree(root / "realiad_jsons")
    folder = root / "realiad_jsons" / splits if nested else root / splits
    folder.mkdir(parents=True)
    (folder / "audiojack.json").write_text(content)
    assert len(real_iad.build(root, CATEGORY, "train", splits=splits)) == 4
    if splits != "realiad_jsons":
        with pytest.raises(UserError, match=r"has no 'realiad_jsons/audiojack\.json', nor is it"):
            real_iad.build(root, CATEGORY, "train")


def test_defects_among_training_images_keep_their_labels(root):
    content = json.loads((root / LIST).read_text())
    change(root, train=[*content["train"], NG], test=[OK])
    train = real_iad.build(root, CATEGORY, "train")
    assert sorted(train.labels) == [0, 0, 0, 0, 1]
    assert train.kinds[0] == "AK"
    np.testing.assert_array_equal(train[0].mask, layouts.DEFECT)


def test_images_of_another_size(root):
    (root / "realiad_1024").rename(root / "realiad_256")
    source = real_iad.build(root, CATEGORY, "test", images="realiad_256")
    assert all("/realiad_256/" in path for path in source.paths)
    assert real_iad.categories(root) == [CATEGORY]
    with pytest.raises(UserError, match=r"no folder 'realiad_1024': did you mean 'realiad_256'"):
        real_iad.build(root, CATEGORY, "test")


@pytest.mark.parametrize("name", ["..", "../Real-IAD", "/tmp", ".", "a/b", "a\0b", "two\nlines"])
def test_options_that_leave_the_root(root, name):
    for option in ("images", "splits"):
        with pytest.raises(UserError, match=rf"data\.options\.{option}='.*': give it") as caught:
            real_iad.build(root, CATEGORY, "train", **{option: name})
        assert "\n" not in str(caught.value)


def test_a_folder_of_an_impossible_name(root):
    with pytest.raises(UserError, match="has no folder 'xxx"):
        real_iad.build(root, CATEGORY, "train", images="x" * 5000)
    with pytest.raises(UserError, match="has no 'xxx"):
        real_iad.build(root, CATEGORY, "train", splits="x" * 5000)


def test_missing_masks_are_named_unless_masks_are_off(root):
    (root / "realiad_1024" / CATEGORY / NG["mask_path"]).unlink()
    with pytest.raises(UserError, match=r"test\[2\]: .* has no file 'audiojack/NG/AK/.*\.png'"):
        real_iad.build(root, CATEGORY, "test")
    assert not real_iad.build(root, CATEGORY, "test", masks="none").has_masks
    change(root, test=[{**NG, "mask_path": None}])
    with pytest.raises(UserError, match=r"C1_20230922130520\.jpg' has no mask"):
        real_iad.build(root, CATEGORY, "test")
    assert not real_iad.build(root, CATEGORY, "test", masks="auto").has_masks
    with pytest.raises(UserError, match=r"data\.options\.masks='some' is unknown"):
        real_iad.build(root, CATEGORY, "train", masks="some")


def test_a_mask_of_another_size_or_damaged(root):
    file = root / "realiad_1024" / CATEGORY / NG["mask_path"]
    Image.new("L", (5, 4)).save(file)
    with pytest.raises(UserError, match=r"\.png' is 5 x 4 .*\.jpg' is 64 x 48"):
        real_iad.build(root, CATEGORY, "test")
    file.write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read '.*\.png'"):
        real_iad.build(root, CATEGORY, "test")
    layouts.mask(file, value=90)
    assert not real_iad.build(root, CATEGORY, "test", mask_threshold=127)[0].mask.any()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({**OK, "image_path": "OK/none.jpg"}, r"has no file 'audiojack/OK/none\.jpg'"),
        ({**OK, "image_path": "/etc/passwd"}, "'/etc/passwd' is no path of a file below"),
        ({**OK, "image_path": "../../a.jpg"}, r"'audiojack/\.\./\.\./a\.jpg' is no path"),
        ({**OK, "image_path": ""}, "has no file 'audiojack'"),
        ({**OK, "image_path": "x" * 5000}, "has no file 'audiojack/xxx"),
        ({**OK, "image_path": "a\0\nb"}, r"has no file 'audiojack/a\\x00\\nb'"),
        ({**OK, "image_path": None}, "'image_path' is missing or not a text"),
        ({**OK, "anomaly_class": 3}, "'anomaly_class' is missing or not a text"),
        ({**NG, "mask_path": "../m.png"}, r"'audiojack/\.\./m\.png' is no path"),
        ({**NG, "mask_path": "/m.png"}, r"'/m\.png' is no path"),
        ({**NG, "mask_path": ["m.png"]}, "'mask_path' is missing or not a text"),
        ({}, "'anomaly_class' is missing"),
        ("OK", "'anomaly_class' is missing"),
        (None, "'anomaly_class' is missing"),
    ],
)
def test_a_wrong_item_is_named(root, item, message):
    change(root, test=[OK, item])
    with pytest.raises(UserError, match=rf"audiojack\.json' test\[1\]: .*{message}") as caught:
        real_iad.build(root, CATEGORY, "test")
    assert "\n" not in str(caught.value)


META = {"prefix": "audiojack/", "normal_class": "OK"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"cannot read '.*audiojack\.json': Expecting value"),
        ('{"meta": {', "cannot read '.*': .* restore the file"),
        ("[" * 200_000, "cannot read '.*'"),
        ("[]", "'meta' is missing or not an object"),
        ("null", "'meta' is missing"),
        ("{}", "'meta' is missing"),
        ('{"meta": "audiojack/"}', "'meta' is missing or not an object"),
        (json.dumps({"meta": {"prefix": "a"}}), "meta: 'normal_class' is missing"),
        (json.dumps({"meta": {"normal_class": "OK"}}), "meta: 'prefix' is missing"),
        (json.dumps({"meta": META}), "'test' is missing or not a list"),
        (json.dumps({"meta": META, "test": {}}), "'test' is missing or not a list"),
        (json.dumps({"meta": META, "test": []}), "has no test images: restore"),
        (json.dumps({"meta": {**META, "prefix": "../"}, "test": [OK]}), r"'\.\./OK/.*' is no path"),
        (json.dumps({"meta": {**META, "prefix": "/"}, "test": [OK]}), "'/OK/.*' is no path"),
    ],
)
def test_a_damaged_list(root, content, message):
    (root / LIST).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        real_iad.build(root, CATEGORY, "test")
    assert "\n" not in str(caught.value)
    assert "audiojack.json" in str(caught.value)


def test_a_list_that_is_no_text(root):
    (root / LIST).write_bytes(b"\xff\xfe\0")
    with pytest.raises(UserError, match=r"cannot read '.*audiojack\.json': .*0xff"):
        real_iad.build(root, CATEGORY, "test")


@pytest.mark.parametrize("prefix", ["audiojack", "audiojack/", "./audiojack//"])
def test_the_prefix_may_end_as_it_likes(root, prefix):
    change(root, meta={**META, "prefix": prefix})
    assert len(real_iad.build(root, CATEGORY, "test")) == 4


@pytest.mark.parametrize(
    ("where", "category", "split", "message"),
    [
        ("", "toybrick", "train", "has no category 'toybrick': did you mean 'toy_brick'"),
        ("", "", "train", "no category '': choices are audiojack, bottle_cap"),
        ("", CATEGORY, "val", "split='val' is unknown"),
        ("", "zipper", "train", r"has no 'realiad_jsons/zipper\.json', nor .*unpack the lists"),
        ("realiad_1024", CATEGORY, "train", "has no folder 'realiad_1024': it holds audiojack"),
        ("nowhere", CATEGORY, "train", "has no 'nowhere'"),
    ],
)
def test_wrong_place(root, where, category, split, message):
    with pytest.raises(UserError, match=message) as caught:
        real_iad.build(root / where, category, split)
    assert "\n" not in str(caught.value)


def test_thirty_categories_and_one_set_of_options():
    assert len(real_iad.CATEGORIES) == 30
    assert list(real_iad.CATEGORIES) == sorted(set(real_iad.CATEGORIES))
    assert datasets.options("real_iad").to_dict() == real_iad.build.__kwdefaults__
