"""Real-IAD: lists of files by category, views, and lists whose training images have defects."""

import json
import shutil

import numpy as np
import pytest

from flowad_jax.data import sources
from flowad_jax.errors import UserError
from tests.data import layouts

CATEGORY = "audiojack"
LIST = "realiad_jsons/realiad_jsons/audiojack.json"
OK, NG = layouts.real_iad_item(3, "OK", "C1"), layouts.real_iad_item(4, "AK", "C1")
META = {"prefix": "audiojack/", "normal_class": "OK"}


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "Real-IAD"
    layouts.write_real_iad(path)
    return path


def build(root, split="test", **options):
    return sources.build("real_iad", root, CATEGORY, split, **options)


def change(root, **sections):
    """Rewrites the list with other sections."""
    content = json.loads((root / LIST).read_text()) | sections
    (root / LIST).write_text(json.dumps(content))


def test_the_order_of_the_list_does_not_matter(root):
    before = build(root)
    assert before.kinds == ["AK", "AK", "good", "good"]
    change(root, test=json.loads((root / LIST).read_text())["test"][::-1])
    assert build(root).paths == before.paths


def test_one_view(root):
    test = build(root, views="C2")
    assert len(test) == 2
    assert all("_C2_" in path for path in test.paths)
    with pytest.raises(UserError, match=r"has no train images of the view C5.*\(expected {root}"):
        build(root, "train", views="C5")
    with pytest.raises(UserError, match=r"data\.options\.views='C6': "):
        build(root, views="C6")
    folder = root / "realiad_1024" / CATEGORY
    shutil.copy(folder / OK["image_path"], folder / "OK/plain.jpg")
    change(root, test=[{**OK, "image_path": "OK/plain.jpg"}])
    assert len(build(root)) == 1
    with pytest.raises(UserError, match=r"test\[0\]: the name 'plain\.jpg' tells no view"):
        build(root, views="C1")


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("splits", ["realiad_jsons", "realiad_jsons_fuiad_0.1"])
def test_lists_lie_in_the_root_or_in_the_folder_of_all_lists(root, splits, nested):
    content = (root / LIST).read_text()
    shutil.rmtree(root / "realiad_jsons")
    folder = root / "realiad_jsons" / splits if nested else root / splits
    folder.mkdir(parents=True)
    (folder / "audiojack.json").write_text(content)
    assert len(build(root, "train", splits=splits)) == 4
    if splits != "realiad_jsons":
        with pytest.raises(UserError, match=r"has no 'realiad_jsons/audiojack\.json', nor is it"):
            build(root, "train")


def test_defects_among_training_images_keep_their_labels(root):
    content = json.loads((root / LIST).read_text())
    change(root, train=[*content["train"], NG], test=[OK])
    train = build(root, "train")
    assert sorted(train.labels) == [0, 0, 0, 0, 1]
    assert train.kinds[0] == "AK"
    np.testing.assert_array_equal(train[0].mask, layouts.DEFECT)


def test_images_of_another_size(root):
    (root / "realiad_1024").rename(root / "realiad_256")
    assert all("/realiad_256/" in path for path in build(root, images="realiad_256").paths)
    assert sources.categories("real_iad", root) == [CATEGORY]
    with pytest.raises(UserError, match=r"no folder 'realiad_1024': did you mean 'realiad_256'"):
        build(root)


@pytest.mark.parametrize("option", ["images", "splits"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, r"data\.options\.{}='.*': give it") for name in
          ("..", "../Real-IAD", "/tmp", ".", "a/b", "a\0b", "two\nlines")),
        ("x" * 5000, r"has no (folder )?'xxx"),
    ],
)  # fmt: skip
def test_options_that_leave_the_root_or_cannot_be(root, option, name, message):
    with pytest.raises(UserError, match=message.format(option)):
        build(root, **{option: name})


ITEMS = [
    ({**OK, "image_path": "OK/none.jpg"}, r" test\[1\]: .*no file 'audiojack/OK/none\.jpg'"),
    ({**OK, "image_path": "/etc/passwd"}, r"\[1\]: '/etc/passwd' is no path of a file below"),
    ({**OK, "image_path": ""}, "has no file 'audiojack'"),
    ({**OK, "image_path": "a\0\nb"}, r"has no file 'audiojack/a\\x00\\nb'"),
    ({**OK, "image_path": None}, r"test\.1\.image_path=None: must be text; restore the file"),
    ({**OK, "anomaly_class": 3}, r"test\.1\.anomaly_class=3: must be text"),
    ({**NG, "mask_path": "../m.png"}, r"\[1\]: 'audiojack/\.\./m\.png' is no path"),
    ({**NG, "mask_path": "none.png"}, r"\[1\]: .* has no file 'audiojack/none\.png'"),
    ({**NG, "mask_path": ["m.png"]}, r"test\.1\.mask_path=\['m\.png'\]: must be text or null"),
    ({**NG, "mask_path": None}, r"C1_20230922130520\.jpg' has no mask"),
    ({}, r"has no test\.1\.anomaly_class"),
    ("OK", r"test\.1='OK': must be a table"),
    (None, r"test\.1=None: must be a table"),
]
LISTS = [
    ("", r"audiojack\.json cannot be read \(Expecting value.*restore the file"),
    ('{"meta": {', "cannot be read"),
    ("\xff\0", "cannot be read"),
    ("[" * 200_000, "cannot be read"),
    ("[]", "must be a table"),
    ("{}", "has no meta, test"),
    ('{"meta": "audiojack/", "test": []}', "meta='audiojack/': must be a table"),
    (json.dumps({"meta": {"prefix": "a"}, "test": []}), r"has no meta\.normal_class"),
    (json.dumps({"meta": META}), "has no test"),
    (json.dumps({"meta": META, "test": {}}), "test={}: must be a list"),
    (json.dumps({"meta": META, "test": []}), "has no test images: restore"),
    (json.dumps({"meta": {**META, "prefix": "../"}, "test": [OK]}), r"'\.\./OK/.*' is no path"),
    (json.dumps({"meta": {**META, "prefix": "/"}, "test": [OK]}), "'/OK/.*' is no path"),
]


@pytest.mark.parametrize(
    ("content", "message"),
    [*LISTS, *((json.dumps({"meta": META, "test": [OK, item]}), text) for item, text in ITEMS)],
)
def test_a_wrong_item_or_a_damaged_list_is_named(root, content, message):
    (root / LIST).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message) as caught:
        build(root)
    assert "audiojack" in str(caught.value)


@pytest.mark.parametrize("prefix", ["audiojack", "./audiojack//"])
def test_the_prefix_may_end_as_it_likes(root, prefix):
    change(root, meta={**META, "prefix": prefix})
    assert len(build(root)) == 4


def test_a_list_that_is_missing(root):
    (root / LIST).unlink()
    with pytest.raises(UserError, match=r"has no 'realiad_jsons/audiojack\.json', nor .*unpack th"):
        build(root)
