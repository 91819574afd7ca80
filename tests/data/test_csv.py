"""Tables of images as spreadsheets and hands write them, and what is said of one that is wrong."""

import csv
import os

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import csv_table, sources
from flowad_jax.data.subset import Subset
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
FIX = "mend it"


def read(file, content, **options):
    file.write_bytes(content)
    rows = csv_table.read(file, ("image", "split"), FIX, delimiters=",;\t", **options)
    return [(row.where.rpartition(" ")[2], row.cells) for row in rows]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("between", [b",", b";", b"\t", b" ; "])
def test_line_ends_marks_and_delimiters(tmp_path, end, mark, between):
    lines = [[b"split", b"image", b"note"], [b"train", b"a b.png", b""], [b""], [b"", b"", b""]]
    lines += [[b"test", b'"c;,.png"', b'"x\ty"'], [b""]]
    if between == b" ; ":
        lines[4] = [b"test", b"c, .png", b"x y"]
    rows = read(tmp_path / "a.csv", mark + end.join(between.join(line) for line in lines))
    assert [line for line, _ in rows] == ["2", "5"]
    assert rows[0][1] == {"split": "train", "image": "a b.png", "note": ""}
    assert rows[1][1]["image"] == ("c, .png" if between == b" ; " else "c;,.png")


def test_columns_that_do_not_matter_may_be_there_twice(tmp_path):
    header = b"image,split,note,note\n"
    assert read(tmp_path / "a.csv", header + b"a,train,1,2\n")[0][1]["image"] == "a"
    with pytest.raises(UserError, match="has the column 'note' twice: mend it"):
        read(tmp_path / "a.csv", header, optional=("note",))


def test_a_table_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(UserError, match=r"cannot read '.*a\.csv': .*Permission denied"):
        csv_table.read(tmp_path / "a.csv", ("image",), FIX)


@pytest.fixture
def root(tmp_path):
    """The files of the small copy, with a table without categories."""
    path = tmp_path / "caps"
    layouts.write_csv(path)
    write_table(path, ROWS)
    return path


def write_table(root, rows, header=HEADER, delimiter=",", name="dataset.csv"):
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])


def build(root, category="", split="test", **options):
    return sources.build("csv", root, category, split, **options)


def names(source):
    return [path.split("/")[-1] for path in source.paths]


def test_splits_are_in_the_order_of_the_table(root):
    assert names(build(root, split="train")) == ["train_3.png", "train_1.png"]
    test = build(root)
    assert (names(test), test.kinds) == (["crack.jpg", "test_0.png"], ["crack", "good"])
    assert sources.categories("csv", root) == [""]
    header = ["remark", "mask", "label", "image", "split", "remark"]
    rows = [["a,b;c", *(row[i] for i in (3, 2, 0, 1)), "ä"] for row in ROWS]
    write_table(root, [*rows, [""] * len(header)], header, delimiter=";")
    assert names(build(root)) == ["crack.jpg", "test_0.png"]
    np.testing.assert_array_equal(build(root)[0].mask, layouts.DEFECT)
    write_table(root, [GOOD])
    with pytest.raises(UserError, match=r"has the split 'train': add some \(expected"):
        build(root, split="train")
    assert len(build(root, split="validation")) == 0  # nobody needs to have any


def test_words_for_labels(root):
    words = ["good", "Normal", "0", "1", "anomalous", "Anomalous", "Crack", "unknown"]
    write_table(root, [[GOOD[0], "test", word, ""] for word in words])
    source = build(root)
    assert source.kinds == ["good"] * 3 + ["anomalous"] * 3 + ["Crack", "unknown"]
    assert source.labels.tolist() == [0] * 3 + [1] * 4 + [-1]


def test_masks_are_joined_and_looked_for_only_where_they_are_needed(root):
    write_table(root, [[*CRACK[:3], "masks/crack_1.png;"], [*GOOD[:3], "masks/none.png"]])
    source = build(root)
    np.testing.assert_array_equal(source[0].mask, layouts.halves()[1])
    assert not source[1].mask.any()
    write_table(root, [row[:3] for row in ROWS], HEADER[:3])
    assert not build(root).has_masks  # nor is there a column
    with pytest.raises(UserError, match=r"crack\.jpg' has no mask"):
        build(root, masks="require")
    write_table(root, [CRACK, ["images/anomalous.jpg", "test", "1", ""]])
    with pytest.raises(UserError, match=r"anomalous\.jpg' has no mask"):
        build(root)


def test_white_of_deep_images(root):
    Image.fromarray(np.full((48, 64), 4095, np.uint16)).save(root / "images" / "train_1.png")
    assert build(root, split="train", white=4095)[1].image.max() == 255


def test_the_root_may_be_the_table_and_paths_start_there(root):
    write_table(root, ROWS[:1], name="other.tsv", delimiter="\t")
    for where, options in ((root / "other.tsv", {}), (root, {"table": "other.tsv"})):
        assert build(where, split="train", **options).paths == [str(root / "images/train_3.png")]
    assert sources.categories("csv", str(root / "other.tsv")) == [""]
    (root / "images" / "tables").mkdir()
    (root / "images" / "train_0.png").rename(root / "images/tables/train_0.png")
    write_table(root / "images/tables", [["train_0.png", "train", "0", ""]], name="a.csv")
    assert len(build(root, split="train", table="images/tables/a.csv")) == 1


def test_categories(root):
    header = [*HEADER, "category"]
    rows = [
        [*row, word] for row, word in zip(ROWS, ["nut", "cap", "cap", "cap", "nut"], strict=True)
    ]
    other = ["nowhere.png", "sometimes", "", "", "ring"]  # whose lines do not matter to others
    write_table(root, [*rows, other], header)
    assert sources.categories("csv", root) == ["cap", "nut", "ring"]
    assert names(build(root, "cap", "train")) == ["train_1.png"]
    assert names(build(root, "nut", "test")) == ["test_0.png"]
    with pytest.raises(UserError, match=r"has no category 'nuts': did you mean 'nut'\? it holds"):
        build(root, "nuts", "train")
    with pytest.raises(UserError, match=r"is not set, .*categories: it holds cap, nut, ring"):
        build(root, "", "train")
    write_table(root, rows[:2], header)
    assert names(build(root, "nut")) == []
    write_table(root, rows[3:], header)
    with pytest.raises(UserError, match=r"no line of 'nut' in '.*' has the split 'train'"):
        build(root, "nut", "train")
    write_table(root, [[*GOOD, f"a\n{number:03}"] for number in range(90)], header)
    with pytest.raises(UserError, match=r"no category 'x': it holds a 000, .* and 70 more$"):
        build(root, "x", "train")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["none.png", "test", "good", ""], r"line 3: '.*' has no file 'none\.png': correct"),
        (["/etc/passwd", "test", "good", ""], "line 3: '/etc/passwd' is no path of a file below"),
        (["images", "test", "good", ""], "has no file 'images'"),
        (["two\nlines", "test", "good", ""], r"line 4: .* has no file 'two\\nlines'"),
        ([*CRACK[:3], "../m.png"], r"line 3: '\.\./m\.png' is no path"),
        ([*CRACK[:3], "masks/a.png"], r"line 3: .* has no file 'masks/a\.png'"),
        ([*GOOD[:2], " ", ""], "line 3: the label is empty: write good, anomalous or"),
        ([GOOD[0], "tests", "good", ""], r"line 3: split='tests': did you mean 'test'"),
        ([GOOD[0], "", "good", ""], "line 3: split='': choices are test, train, val"),
        (["a.png", "train", "crack", ""], "line 3: an image to train on has the label 'crack'"),
        (["a.png", "train", "unknown", ""], "line 3: an image to train on has the label 'unk"),
        (["a.png", "validation", "x\ny", ""], r"line 4: a validation image has the label 'x\\ny'"),
        (GOOD[:3], "line 3 has not 4 cells"),
    ],
)
def test_a_wrong_line_is_named(root, row, message):
    write_table(root, [GOOD, row])
    with pytest.raises(UserError, match=message) as caught:
        build(root)
    assert "dataset.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column 'image': correct the table"),
        (b"image,split,label\n", "has no lines but the header"),
        (b"image,label\n", "has no column 'split'"),
        (b"image;Split;label\na;b;c\n", "has no column 'split'"),
        (b"image,split,label,image\n", "has the column 'image' twice"),
        (b"image,split,label\na,b,c\nd\n", "line 3 has not 3 cells"),
        (b"image,split,label\na,b,c,d\n", "line 2 has not 3 cells"),
        (b'image,split,label\n"c\nd"\n', "line 3 has not 3 cells"),
        (b"\x89PNG\r\n\x1a\n\0\0", r"cannot read '.*': .*0x89.* save it as CSV in UTF-8"),
        ("image,split,label\n".encode("utf-16"), r"cannot read .*0xff"),
        (b"image,split,label\n\xe4.png,train,0\n", r"cannot read .*0xe4"),
        (b'image,split,label\n"' + b"x" * 200_000, r"cannot read .*field"),
    ],
)
def test_a_damaged_table(root, content, message):
    (root / "dataset.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        build(root)


def test_wrong_place(root):
    os.rename(root / "dataset.csv", root / "data.csv")
    with pytest.raises(UserError, match=r"caps' has no table 'dataset\.csv': put it there, or"):
        sources.categories("csv", root)
    for name in ("../data.csv", str(root / "data.csv"), "", "."):
        with pytest.raises(UserError, match=r"data\.options\.table: '.*' is no path of a file"):
            build(root, table=name)
    with pytest.raises(UserError, match=r"options\.table: '.*' has no file 'b\.csv': correct"):
        build(root, table="b.csv")
    with pytest.raises(UserError, match=r"data\.category='cap': '.*' has no categories, use ''"):
        build(root / "data.csv", "cap")


def test_times_and_samples_are_read_where_all_lines_have_them(tmp_path):
    layouts.photograph(tmp_path / "a.png")
    layouts.photograph(tmp_path / "b.png")

    def source(*cells):
        lines = [f"{n}.png,test,good,{cell},part 7" for n, cell in zip("ab", cells, strict=True)]
        (tmp_path / "dataset.csv").write_text("\n".join(["image,split,label,time,sample", *lines]))
        return sources.build("csv", str(tmp_path), "", "test")

    found = source("2026-02-24T08:30:00", "2026-02-25")
    assert [time.isoformat() for time in found.times] == [
        "2026-02-24T08:30:00",
        "2026-02-25T00:00:00",
    ]
    assert found.samples == ["part 7"] * 2
    assert Subset(found, np.array([1])).times == found.times[1:]
    for cells in (("2026-02-24", ""), ("2026-02-24", "noon"), ("2026-02-24", "2026-02-24T08:00Z")):
        assert source(*cells).times is None
