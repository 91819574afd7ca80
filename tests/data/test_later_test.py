"""Which images a finished detector is tested on later, and which are refused."""

from collections import Counter

import pytest

from flowad_jax.data import fingerprint, later_test
from flowad_jax.errors import UserError
from tests.data.test_csv import GOOD, ROWS, write_table
from tests.data.test_folder import put, put_mask

TEST = ("test/good/1.png", "test/good/2.png", "test/spot/3.png")


def find(place, category="", **options):
    return later_test.source(str(place), category, options, place / "run")


@pytest.mark.parametrize(
    ("files", "place", "category", "kinds"),
    [
        (TEST, "", "", {"good": 2, "spot": 1}),
        (TEST, "test", "", {"good": 2, "spot": 1}),
        ([f"screw/{name}" for name in TEST], "", "screw", {"good": 2, "spot": 1}),
        (["1.png", "a/2.jpg", "run/3.png"], "", "", {"unknown": 2}),
        (["test/1.png"], "test", "", {"unknown": 1}),
        (["test/1.png"], "", "", {"unknown": 1}),
    ],
)
def test_labelled_or_not(tmp_path, files, place, category, kinds):
    for name in files:
        put(tmp_path / name)
    found = later_test.source(str(tmp_path / place), category, {}, tmp_path / "run")
    assert Counter(found.kinds) == kinds
    assert not found.has_masks


def test_masks_and_tables(tmp_path):
    for name in TEST:
        put(tmp_path / "a" / name)
    put_mask(tmp_path / "a/ground_truth/spot/3_mask.png")
    assert find(tmp_path / "a").has_masks
    assert not find(tmp_path / "a", masks="none").has_masks
    (tmp_path / "b").mkdir()
    put(tmp_path / "b" / GOOD[0])
    write_table(tmp_path / "b", [GOOD])
    assert find(tmp_path / "b").kinds == find(tmp_path / "b/dataset.csv").kinds == ["good"]
    write_table(tmp_path / "b", ROWS[:1])
    put(tmp_path / "b" / ROWS[0][0])
    with pytest.raises(UserError, match=r"no line of .* has the split 'test'"):
        find(tmp_path / "b")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["good/1.png", "spot/2.png"], "has a folder 'good', but none called 'test': move it"),
        (["note.txt"], "matches no image: give a file"),
    ],
)
def test_what_is_no_test_set(tmp_path, files, message):
    for name in files:
        put(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=message):
        find(tmp_path)


@pytest.mark.parametrize("use", ["train", "holdout"])
def test_images_that_the_detector_knows_are_refused(tmp_path, use):
    for value in range(3):
        put(tmp_path / f"{value}.png", value=value)
    (tmp_path / "2.png").rename(tmp_path / "copy.png")
    known = {use: {"2.png": fingerprint.of_file(tmp_path / "copy.png")}}
    found = find(tmp_path)
    with pytest.raises(UserError, match=r"1 of 3 images in 'x' were trained on .*copy\.png"):
        later_test.check_new(found, known, "x")
    later_test.check_new(found, {use: {"2.png": "0" * 32}}, "x")
