"""VisA as it is downloaded and as the authors' script converts it."""

import csv

import numpy as np
import pytest
from PIL import Image

from configs import datasets
from flowad_jax.data import visa
from flowad_jax.errors import UserError

HEADER = ["object", "split", "label", "image", "mask"]
NORMAL, ANOMALY = "{}/Data/Images/Normal/{}.JPG", "{}/Data/Images/Anomaly/{}.JPG"
MASK = "{}/Data/Masks/Anomaly/{}.png"
SIZE = (16, 12)
DEFECT = np.zeros(SIZE[::-1], np.uint8)
DEFECT[2, 3], DEFECT[4:6, 1:3], DEFECT[8, 5:8], DEFECT[9, 9] = 1, 2, 3, 4
PIXELS = 1 + 4 + 3 + 1


def row(category, split, stem, anomalous=False):
    if not anomalous:
        return [category, split, "normal", NORMAL.format(category, stem), ""]
    files = [ANOMALY.format(category, stem), MASK.format(category, stem)]
    return [category, split, "anomaly", *files]


# The splits of the set mix the numbers, and the table is in no order.
ROWS = [
    *(row("candle", "train", stem) for stem in ("0004", "0001", "0003")),
    row("candle", "test", "0002"),
    *(row("candle", "test", stem, anomalous=True) for stem in ("001", "000")),
    row("pipe_fryum", "train", "0000"),
    row("pipe_fryum", "test", "000", anomalous=True),
]


def photograph(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (value, 120, 80)).save(path)


def mask(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_table(root, rows, header=HEADER):
    table = root / "split_csv" / "1cls.csv"
    table.parent.mkdir(exist_ok=True)
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return table


@pytest.fixture
def downloaded(tmp_path):
    root = tmp_path / "VisA"
    for number, (_, _, _, image, truth) in enumerate(ROWS):
        photograph(root / image, 20 * number)
        if truth:
            mask(root / truth, DEFECT)
    write_table(root, ROWS)
    return root


@pytest.fixture
def converted(tmp_path):
    root = tmp_path / "VisA_pytorch"
    for number, (category, split, label, image, truth) in enumerate(ROWS):
        folder = root / "1cls" / category
        name = image.split("/")[-1]
        photograph(folder / split / ("bad" if truth else "good") / name, 20 * number)
        if label == "anomaly":
            binary = np.where(DEFECT > 0, 255, 0).astype(np.uint8)
            mask(folder / "ground_truth" / "bad" / truth.split("/")[-1], binary)
    return root


def names(source):
    return [path.split("/")[-1] for path in source.paths]


def test_downloaded_splits_follow_the_table(downloaded):
    train = visa.build(downloaded, "candle", "train")
    assert names(train) == ["0001.JPG", "0003.JPG", "0004.JPG"]
    assert train.kinds == ["good"] * 3
    assert not train.has_masks
    test = visa.build(downloaded, "candle", "test")
    assert names(test) == ["000.JPG", "001.JPG", "0002.JPG"]
    assert test.kinds == ["anomaly", "anomaly", "good"]
    assert test.labels.tolist() == [1, 1, 0]
    assert visa.categories(downloaded) == ["candle", "pipe_fryum"]


def test_every_number_of_a_mask_is_a_defect(downloaded):
    source = visa.build(downloaded, "candle", "test")
    np.testing.assert_array_equal(source[0].mask, DEFECT > 0)
    assert not source[2].mask.any()
    assert visa.build(downloaded, "candle", "test", mask_threshold=2)[0].mask.sum() == 3 + 1


@pytest.mark.parametrize("below", ["", "1cls"])
def test_both_layouts_give_the_same_records_in_the_same_order(downloaded, converted, below):
    assert visa.categories(converted / below) == visa.categories(downloaded)
    for split in ("train", "test"):
        first = visa.build(downloaded, "candle", split)
        second = visa.build(converted / below, "candle", split)
        assert names(first) == names(second)
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.mask, b.mask)
            assert a.label == b.label
    assert second.kinds == ["bad", "bad", "good"]
    assert second[0].mask.sum() == PIXELS


def test_the_files_as_downloaded_count_where_there_are_both(downloaded, converted):
    (converted / "1cls").rename(downloaded / "1cls")
    assert visa.build(downloaded, "candle", "test").kinds[0] == "anomaly"


def test_masks_may_be_done_without(downloaded):
    (downloaded / MASK.format("candle", "000")).unlink()
    assert not visa.build(downloaded, "candle", "test", masks="none").has_masks
    with pytest.raises(UserError, match=r"line 7: .* has no file 'candle/Data/Masks/.*000\.png'"):
        visa.build(downloaded, "candle", "test")
    with pytest.raises(UserError, match=r"data\.options\.masks='maybe' is unknown"):
        visa.build(downloaded, "pipe_fryum", "test", masks="maybe")


def test_an_anomalous_image_without_a_mask_in_the_table(downloaded):
    rows = [[*cells[:4], ""] if cells[3].endswith("001.JPG") else cells for cells in ROWS]
    write_table(downloaded, rows)
    with pytest.raises(UserError, match=r"Anomaly/001\.JPG' has no mask"):
        visa.build(downloaded, "candle", "test")


def test_a_table_saved_by_a_spreadsheet(downloaded):
    table = downloaded / "split_csv" / "1cls.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes() + b"\r\n")
    assert len(visa.build(downloaded, "candle", "train")) == 3


OTHER = row("candle", "test", "0002")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[*OTHER[:3], "candle/none.JPG", ""]], r"line 2: .* has no file 'candle/none\.JPG'"),
        ([[*OTHER[:3], "/etc/passwd", ""]], "line 2: '/etc/passwd' is no path of a file below"),
        ([[*OTHER[:3], "candle/../../a.JPG", ""]], r"'candle/\.\./\.\./a\.JPG' is no path"),
        ([[*OTHER[:3], "", ""]], "line 2: '' is no path"),
        ([[*OTHER[:3], ".", ""]], r"line 2: '\.' is no path"),
        ([[*OTHER[:3], "candle", ""]], "has no file 'candle'"),
        ([[*OTHER[:3], "x" * 5000, ""]], "has no file 'xxx"),
        ([[*OTHER[:3], "two\nlines", ""]], r"line 3: .* has no file 'two\\nlines'"),
        ([OTHER, ["candle", "test", "odd", *OTHER[3:]]], "line 3: label='odd' is unknown"),
        ([OTHER, ["candle", "tset", *OTHER[2:]]], "split='tset' is unknown: did you mean 'test'"),
        ([OTHER, OTHER[:3]], "line 3 has not 5 cells"),
        ([OTHER, [*OTHER, "more"]], "line 3 has not 5 cells"),
        ([row("candle", "train", "000", anomalous=True)], "line 2: an anomalous image to train on"),
        ([row("pcb1", "test", "0002")], "has no test images of 'candle'"),
        ([], "has no test images of 'candle'"),
    ],
)
def test_a_wrong_row_is_named(downloaded, rows, message):
    write_table(downloaded, rows)
    with pytest.raises(UserError, match=message) as caught:
        visa.build(downloaded, "candle", "test")
    assert "\n" not in str(caught.value)
    assert "1cls.csv" in str(caught.value)


def test_rows_of_other_categories_do_not_matter(downloaded):
    write_table(downloaded, [*ROWS, ["pcb1", "test", "normal", "pcb1/none.JPG", ""]])
    assert len(visa.build(downloaded, "candle", "test")) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"object,split,label,image\n", "has no column 'mask'"),
        (b"", "has no column 'object'"),
        (b"object,split,label,image,mask\ncandle,\xff", "cannot read .*1cls.csv': .*0xff"),
        (b'object,split,label,image,mask\n"' + b"x" * 200_000, "cannot read .*field"),
    ],
)
def test_a_damaged_table(downloaded, content, message):
    (downloaded / "split_csv" / "1cls.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        visa.build(downloaded, "candle", "train")
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_told_where_it_belongs(downloaded):
    (downloaded / "split_csv" / "1cls.csv").unlink()
    with pytest.raises(UserError, match=r"VisA/split_csv/1cls\.csv' is missing: put the file"):
        visa.build(downloaded, "candle", "train")
    assert visa.categories(downloaded) == ["candle", "pipe_fryum"]


def test_wrong_place(downloaded, converted, tmp_path):
    with pytest.raises(UserError, match="no category 'candel': did you mean 'candle'"):
        visa.build(downloaded, "candel", "train")
    with pytest.raises(UserError, match="no category '': choices are candle, capsules"):
        visa.build(downloaded, "", "train")
    with pytest.raises(UserError, match="split='val' is unknown"):
        visa.build(downloaded, "candle", "val")
    with pytest.raises(UserError, match="1cls' has no category 'pcb1': it holds candle"):
        visa.build(converted, "pcb1", "train")
    with pytest.raises(UserError, match=r"no category 'candle': it holds VisA, VisA_pytorch"):
        visa.build(tmp_path, "candle", "train")
    with pytest.raises(UserError, match="has no 'ViSA': did you mean 'VisA'"):
        visa.build(tmp_path / "ViSA", "candle", "train")
    assert visa.categories(tmp_path) == []


def test_twelve_categories_and_one_set_of_options():
    assert len(visa.CATEGORIES) == 12
    assert list(visa.CATEGORIES) == sorted(set(visa.CATEGORIES))
    assert datasets.options("visa").to_dict() == visa.build.__kwdefaults__
