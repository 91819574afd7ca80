"""A table of images: how it may be written, and what is said of one that is wrong."""

import csv as files
import os

import numpy as np
import pytest
from PIL import Image

from configs import datasets
from flowad_jax.data import csv, sources
from flowad_jax.errors import UserError
from tests.data import layouts

HEADER = ["image", "split", "label", "mask"]
GOOD = ["images/test_0.png", "test", "good", ""]
CRACK = ["images/crack.jpg", "test", "crack", "masks/crack_0.png; masks/crack_1.png"]
ROWS = [
    *([f"images/train_{i}.png", "train", "good", ""] for i in (3, 1)),
    ["images/validation_0.png", "validation", "good", ""],
    CRACK,
    GOOD,
]


@pytest.fixture
def root(tmp_path):
    """The files of the small copy, with a table without categories."""
    path = tmp_path / "caps"
    layouts.write_csv(path)
    write_table(path, ROWS)
    return path


def write_table(root, rows, header=HEADER, delimiter=",", encoding="utf-8", name="dataset.csv"):
    with (root / name).open("w", newline="", encoding=encoding) as file:
        files.writer(file, delimiter=delimiter).writerows([header, *rows])


def names(source):
    return [path.split("/")[-1] for path in source.paths]


def test_splits_are_in_the_order_of_the_table(root):
    train = csv.build(root, "", "train")
    assert names(train) == ["train_3.png", "train_1.png"]
    assert train.kinds == ["good"] * 2
    assert not train.has_masks
    assert names(csv.build(root, "", csv.ABOUT.validation)) == ["validation_0.png"]
    test = csv.build(root, "", "test")
    assert names(test) == ["crack.jpg", "test_0.png"]
    assert test.kinds == ["crack", "good"]
    assert test.labels.tolist() == [1, 0]
    assert csv.categories(root) == [""]


def test_masks_are_joined(root):
    test = csv.build(root, "", "test")
    np.testing.assert_array_equal(test[0].mask, layouts.DEFECT)
    assert not test[1].mask.any()
    write_table(root, [[*CRACK[:3], "masks/crack_1.png;"], GOOD])
    source = csv.build(root, "", "test")
    np.testing.assert_array_equal(source[0].mask, layouts.halves()[1])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_as_spreadsheets_save_it(root, delimiter, encoding):
    """Other columns, other orders and empty lines do not matter."""
    header = ["remark", "mask", "label", "image", "split", "remark"]
    rows = [["a,b;c", *(row[i] for i in (3, 2, 0, 1)), "ä"] for row in ROWS]
    blank = [[""] * len(header), []]
    write_table(root, [*rows[:2], *blank, *rows[2:], *blank], header, delimiter, encoding)
    assert names(csv.build(root, "", "train")) == ["train_3.png", "train_1.png"]
    test = csv.build(root, "", "test")
    assert test.kinds == ["crack", "good"]
    np.testing.assert_array_equal(test[0].mask, layouts.DEFECT)


def test_words_for_labels(root):
    words = ["good", "Normal", "0", "1", "anomalous", "Anomalous", "Crack", "unknown"]
    write_table(root, [[GOOD[0], "test", word, ""] for word in words])
    source = csv.build(root, "", "test")
    assert source.kinds == ["good"] * 3 + ["anomalous"] * 3 + ["Crack", "unknown"]
    assert source.labels.tolist() == [0] * 3 + [1] * 4 + [-1]


def test_a_table_needs_no_masks(root):
    write_table(root, [row[:3] for row in ROWS], HEADER[:3])
    assert not csv.build(root, "", "test").has_masks
    with pytest.raises(UserError, match=r"crack\.jpg' has no mask"):
        csv.build(root, "", "test", masks="require")
    write_table(root, [CRACK, ["images/anomalous.jpg", "test", "1", ""]])
    with pytest.raises(UserError, match=r"anomalous\.jpg' has no mask"):
        csv.build(root, "", "test")
    for split in ("train", "test"):
        write_table(root, ROWS)
        with pytest.raises(UserError, match=r"data\.options\.masks='some' is unknown"):
            csv.build(root, "", split, masks="some")


def test_masks_are_not_looked_for_where_they_are_off_or_not_needed(root):
    (root / "masks/crack_0.png").unlink()
    write_table(root, [CRACK, [*GOOD[:3], "masks/none.png"]])
    assert not csv.build(root, "", "test", masks="none").has_masks
    with pytest.raises(UserError, match=r"line 2: .* has no file 'masks/crack_0\.png': correct"):
        csv.build(root, "", "test")


def test_options_for_grey_values(root):
    layouts.mask(root / "masks/crack_0.png", value=90, pixels=layouts.halves()[0])
    source = csv.build(root, "", "test", mask_threshold=127)
    np.testing.assert_array_equal(source[0].mask, layouts.halves()[1])
    deep = np.full((48, 64), 4095, np.uint16)
    Image.fromarray(deep).save(root / "images" / "train_1.png")
    assert csv.build(root, "", "train", white=4095)[1].image.max() == 255


def test_the_root_may_be_the_table(root):
    write_table(root, ROWS[:1], name="other.tsv", delimiter="\t")
    for where, options in ((root / "other.tsv", {}), (root, {"table": "other.tsv"})):
        source = csv.build(where, "", "train", **options)
        assert source.paths == [str(root / "images/train_3.png")]
    assert csv.categories(root / "other.tsv") == [""]
    assert csv.categories(str(root / "dataset.csv")) == [""]


def test_paths_start_at_the_table(root):
    (root / "images" / "tables").mkdir()
    (root / "images" / "train_0.png").rename(root / "images/tables/train_0.png")
    write_table(root / "images/tables", [["train_0.png", "train", "0", ""]], name="a.csv")
    assert len(csv.build(root, "", "train", table="images/tables/a.csv")) == 1


def test_categories(root):
    header = [*HEADER, "category"]
    words = ("nut", "cap", "cap", "cap", "nut")
    rows = [[*row, word] for row, word in zip(ROWS, words, strict=True)]
    write_table(root, rows, header)
    assert csv.categories(root) == ["cap", "nut"]
    assert names(csv.build(root, "cap", "train")) == ["train_1.png"]
    assert names(csv.build(root, "nut", "test")) == ["test_0.png"]
    with pytest.raises(UserError, match=r"has no category 'nuts': did you mean 'nut'\? it holds"):
        csv.build(root, "nuts", "train")
    with pytest.raises(UserError, match=r"is not set, .*categories: it holds cap, nut"):
        csv.build(root, "", "train")
    write_table(root, [[*row, word] for row, word in zip(ROWS[:2], words, strict=False)], header)
    with pytest.raises(UserError, match=r"no line of 'nut' in '.*' has the split 'test'"):
        csv.build(root, "nut", "test")
    write_table(root, [[*GOOD, f"a\n{number:03}"] for number in range(90)], header)
    with pytest.raises(UserError, match=r"no category 'x': it holds a 000, .* and 70 more$") as e:
        csv.build(root, "x", "train")
    assert "\n" not in str(e.value)


def test_lines_of_other_categories_do_not_matter(root):
    header = [*HEADER, "category"]
    other = ["nowhere.png", "sometimes", "", "", "nut"]
    write_table(root, [*([*row, "cap"] for row in ROWS), other], header)
    assert len(csv.build(root, "cap", "train")) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["none.png", "test", "good", ""], r"line 3: '.*' has no file 'none\.png': correct"),
        (["/etc/passwd", "test", "good", ""], "line 3: '/etc/passwd' is no path of a file below"),
        (["a/../../b.png", "test", "good", ""], r"line 3: 'a/\.\./\.\./b\.png' is no path"),
        (["", "test", "good", ""], "line 3: '' is no path"),
        (["images", "test", "good", ""], "has no file 'images'"),
        (["x" * 5000, "test", "good", ""], "has no file 'xxx"),
        (["a\0b", "test", "good", ""], r"has no file 'a\\x00b'"),
        (["two\nlines", "test", "good", ""], r"line 4: .* has no file 'two\\nlines'"),
        ([*CRACK[:3], "../m.png"], r"line 3: '\.\./m\.png' is no path"),
        ([*CRACK[:3], "masks/a.png"], r"line 3: .* has no file 'masks/a\.png'"),
        ([*GOOD[:2], " ", ""], "line 3: the label is empty: write good, anomalous or"),
        ([GOOD[0], "tests", "good", ""], "line 3: split='tests' is unknown: did you mean 'test'"),
        ([GOOD[0], "", "good", ""], "line 3: split='' is unknown: choices are test, train, val"),
        (["a.png", "train", "crack", ""], "line 3: an image to train on has the label 'crack'"),
        (["a.png", "train", "1", ""], "line 3: an image to train on has the label '1'"),
        (["a.png", "train", "unknown", ""], "line 3: an image to train on has the label 'unk"),
        (["a.png", "validation", "x\ny", ""], r"line 4: a validation image has the label 'x\\ny'"),
        (GOOD[:3], "line 3 has not 4 cells"),
        ([*GOOD, "more"], "line 3 has not 4 cells"),
    ],
)
def test_a_wrong_line_is_named(root, row, message):
    write_table(root, [GOOD, row])
    with pytest.raises(UserError, match=message) as caught:
        csv.build(root, "", "test")
    assert "\n" not in str(caught.value)
    assert "dataset.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column 'image': correct the table"),
        (b"image,split,label\n", "has no lines but the header"),
        (b"image,split,label,mask,mask\n", "has the column 'mask' twice"),
        (b"\x89PNG\r\n\x1a\n\0\0", "cannot read '.*': .*0x89.* save it as CSV in UTF-8"),
    ],
)
def test_a_damaged_table(root, content, message):
    (root / "dataset.csv").write_bytes(content)
    for where in (root, root / "dataset.csv"):
        with pytest.raises(UserError, match=message) as caught:
            csv.build(where, "", "train")
        assert "\n" not in str(caught.value)


def test_damaged_images_and_masks(root):
    Image.new("L", (5, 4)).save(root / "masks/crack_1.png")
    with pytest.raises(UserError, match=r"crack_1\.png' is 5 x 4 .*crack\.jpg' is 64 x 48"):
        csv.build(root, "", "test")
    (root / "masks/crack_1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read '.*crack_1\.png'"):
        csv.build(root, "", "test")
    (root / "images/train_3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read '.*train_3\.png'"):
        csv.build(root, "", "train")[0]


def test_wrong_place(root):
    os.rename(root / "dataset.csv", root / "data.csv")
    with pytest.raises(UserError, match=r"caps' has no table 'dataset\.csv': put it there, or"):
        csv.categories(root)
    with pytest.raises(UserError, match=r"has no table 'dataset\.csv'.*\(expected {root}/dataset"):
        sources.build("csv", root, "", "train")
    for name in ("../data.csv", str(root / "data.csv"), "", "."):
        with pytest.raises(UserError, match=r"data\.options\.table: '.*' is no path of a file"):
            csv.build(root, "", "train", table=name)
    with pytest.raises(UserError, match=r"options\.table: '.*' has no file 'b\.csv': correct"):
        csv.build(root, "", "train", table="b.csv")
    with pytest.raises(UserError, match="has no 'cap': did you mean 'caps'"):
        csv.build(root.parent / "cap", "", "train")
    with pytest.raises(UserError, match=r"data\.root is not set"):
        csv.build("", "", "train")
    with pytest.raises(UserError, match=r"data\.category='cap': '.*' has no categories, use ''"):
        csv.build(root / "data.csv", "cap", "train")
    with pytest.raises(UserError, match="split='val' is unknown: choices are test, train"):
        csv.build(root / "data.csv", "", "val")


def test_a_split_without_lines_is_told_with_the_layout(root):
    write_table(root, [GOOD])
    with pytest.raises(UserError, match=r"has the split 'train': add some \(expected") as e:
        sources.build("csv", root, "", "train")
    assert "\n" not in str(e.value)
    assert len(sources.build("csv", root, "", "validation")) == 0  # nobody needs to have any


def test_the_recipe_shows_the_options():
    assert datasets.options("csv").to_dict() == csv.build.__kwdefaults__
