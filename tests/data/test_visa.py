"""VisA as it is downloaded and as the authors' script converts it."""

import csv

import numpy as np
import pytest

from flowad_jax.data import sources
from flowad_jax.errors import UserError
from tests.data import layouts

HEADER = ["object", "split", "label", "image", "mask"]
NORMAL = ["candle", "test", "normal", "candle/Data/Images/Normal/0004.JPG", ""]
ANOMALY = [
    *("candle", "test", "anomaly", "candle/Data/Images/Anomaly/000.JPG"),
    "candle/Data/Masks/Anomaly/000.png",
]


@pytest.fixture
def root(tmp_path):
    layouts.write_visa(tmp_path / "VisA")
    return tmp_path / "VisA"


def build(root, split="test", **options):
    return sources.build("visa", root, "candle", split, **options)


def write_table(root, rows):
    with (root / "split_csv" / "1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])


def convert(root, target):
    """What the authors' script makes of it."""
    with (root / "split_csv" / "1cls.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            bad, folder = bool(row["mask"]), target / row["object"]
            place = folder / row["split"] / ("bad" if bad else "good")
            place.mkdir(parents=True, exist_ok=True)
            (place / row["image"].split("/")[-1]).write_bytes((root / row["image"]).read_bytes())
            if bad:
                layouts.mask(folder / "ground_truth" / "bad" / row["mask"].split("/")[-1])


def test_the_table_decides_on_the_splits_and_its_order_does_not_matter(root):
    train = build(root, "train").paths
    assert [path.split("/")[-1] for path in train] == [f"{i:04}.JPG" for i in range(4)]
    rows = [NORMAL, ANOMALY, *([*NORMAL[:1], "train", *NORMAL[2:]] for _ in range(2))]
    write_table(root, [*rows, ["pcb1", "test", "normal", "pcb1/none.JPG", ""]])
    assert build(root).kinds == ["anomaly", "good"]
    assert len(build(root, "train")) == 2


def test_every_number_of_a_mask_is_a_defect(root):
    numbers = layouts.DEFECT * np.uint8(1)
    numbers[12:15] *= 3
    layouts.mask(root / ANOMALY[4], value=numbers)
    np.testing.assert_array_equal(build(root)[0].mask, layouts.DEFECT)
    assert build(root, mask_threshold=2)[0].mask.sum() == 3 * 16


@pytest.mark.parametrize("below", ["", "1cls"])
def test_both_layouts_give_the_same_records_in_the_same_order(root, below):
    new = root.parent / "VisA_pytorch"
    convert(root, new / below)
    assert sources.categories("visa", new) == ["candle"]
    for split in ("train", "test"):
        for a, b in zip(build(root, split), build(new, split), strict=True):
            assert a.path.split("/")[-1] == b.path.split("/")[-1]
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.mask, b.mask)
            assert a.label == b.label
    assert build(new).kinds == ["bad", "bad", "good", "good"]
    convert(root, root / "1cls")
    assert build(root).kinds[0] == "anomaly"  # the files as downloaded count


def test_an_anomalous_image_without_a_mask_in_the_table(root):
    write_table(root, [[*ANOMALY[:4], ""]])
    with pytest.raises(UserError, match=r"Anomaly/000\.JPG' has no mask"):
        build(root)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[*NORMAL[:3], "candle/none.JPG", ""]], r"line 2: .* has no file 'candle/none\.JPG'"),
        ([[*NORMAL[:3], "/etc/passwd", ""]], "line 2: '/etc/passwd' is no path of a file below"),
        ([[*NORMAL[:3], "two\nlines", ""]], r"line 3: .* has no file 'two\\nlines'"),
        ([NORMAL, ["candle", "test", "odd", *NORMAL[3:]]], "line 3: label='odd': choices are an"),
        ([NORMAL, ["candle", "tset", *NORMAL[2:]]], r"split='tset': did you mean 'test'"),
        ([NORMAL, NORMAL[:3]], "line 3 has not 5 cells"),
        ([["candle", "train", *ANOMALY[2:]]], "line 2: an anomalous image to train on"),
        ([["pcb1", *NORMAL[1:]]], "has no test images of 'candle'"),
        ([], "has no test images of 'candle'"),
    ],
)
def test_a_wrong_row_is_named(root, rows, message):
    write_table(root, rows)
    with pytest.raises(UserError, match=message) as caught:
        build(root)
    assert "1cls.csv" in str(caught.value)


def test_a_missing_or_damaged_table(root):
    table = root / "split_csv" / "1cls.csv"
    table.write_bytes(b"object,split,label,image\n")
    with pytest.raises(UserError, match="has no column 'mask': restore the file that comes with"):
        build(root)
    table.unlink()
    with pytest.raises(UserError, match=r"VisA/split_csv/1cls\.csv' is missing: put the file"):
        build(root)
    assert sources.categories("visa", root) == ["candle"]
    assert sources.categories("visa", root.parent) == []
    with pytest.raises(UserError, match=r"no category 'candle': it holds VisA"):
        build(root.parent)
