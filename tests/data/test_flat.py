"""Normal images without a layout: what is taken, and what is refused with a word on what to do."""

from pathlib import Path

import pytest

from flowad_jax.data import fingerprint, sources
from flowad_jax.errors import UserError
from tests.data.test_csv import ROWS, write_table
from tests.data.test_folder import put

GOOD = ("a/1.png", "a/2.jpg", "b/3.bmp")


def names(root, split="train", category=""):
    return [Path(path).name for path in sources.build("folder", root, category, split).paths]


@pytest.mark.parametrize(
    ("files", "root", "found"),
    [
        (GOOD, "a", ["1.png", "2.jpg"]),
        ((*GOOD, "a/notes.txt", "a/.b/4.png"), "a", ["1.png", "2.jpg"]),
        (GOOD, "a,b", ["1.png", "2.jpg", "3.bmp"]),
        (GOOD, "b/,a/*.png", ["3.bmp", "1.png"]),
        (GOOD, "*/*", ["1.png", "2.jpg", "3.bmp"]),
        (GOOD, "a/1.png,a", ["1.png", "2.jpg"]),
        (("a,b/1.png",), "a,b", ["1.png"]),
        (("a/1.png", "a/bad/2.png"), "a/*", ["1.png"]),  # the pattern says which are meant
        (("a/1.png", "a/runs/x/images/2.png", "a/runs/x/config.json"), "a", ["1.png"]),
        (("a/1.png", "a/out/maps/2.png", "a/out/predictions.jsonl"), "a", ["1.png"]),
        (("a/train/good/1.png",), "a", ["1.png"]),
        (("a/train/good/1.png", "a/docs/note.txt"), "a", ["1.png"]),
        (("test/me/1.png", "test/me/2.png"), "test/me", ["1.png", "2.png"]),
    ],
)
def test_normal_images_alone(tmp_path, monkeypatch, files, root, found):
    monkeypatch.chdir(tmp_path)
    for name in files:
        put(tmp_path / name) if Path(name).suffix in (".png", ".jpg", ".bmp") else put_text(name)
    for where in (root, ",".join(str(tmp_path / part) for part in root.split(","))):
        if root != "a,b" or len(files) > 1:  # else the comma belongs to the name
            assert names(where) == found
    assert names(root) == found
    test = sources.build("folder", root, "", "test")
    assert len(test) == len(test.labels) == 0
    assert not test.has_masks


def put_text(name):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("")


@pytest.mark.parametrize(
    ("files", "root", "message"),
    [
        (("1.png", "test/x/2.png"), ".", "holds images .'1.png'. beside train/ or test/: move"),
        (("test/x/2.png",), ".", "no training images in 'train/good': put"),
        (("a/1.png", "a/bad/2.png"), "a", "'a' holds 1 images, but .* in 'a/bad': move .*'a/\\*'"),
        (("a/1.png", "a/x/y/2.png"), "a,b", "there are more in 'a/x'"),
        (GOOD, ".", "itself holds no images, but .* in 'a', 'b': name .* data.root='a,b', or move"),
        (("Train/good/1.png", "a/x/2.png"), ".", "has no folder 'train': rename 'Train'"),
        (("train/good/1.png", "2.png"), ".", "holds images .'2.png'. beside train/ or test/: move"),
        (("train/good/1.png", "Test/x/2.png"), ".", "has no folder 'test': rename 'Test'"),
        (("train/good/1.png", "tests/x/2.png"), ".", "has no folder 'test': rename 'tests'"),
        (("train/good/1.png", "ground_truth/x/2.png"), ".", "'ground_truth', but no 'test'"),
        (("train/good/1.png", "test/note.txt"), ".", "no test images in 'test': put some into"),
        (("train/1.png",), ".", "no training images in 'train/good', but some in 'train': put"),
        (("train/ok/1.png",), ".", "no training .*, but some in 'train/ok': put"),
        (
            ("train/good/1.png", "test/bad/2.png"),
            "test/bad",
            "as it lies in 'test': set data.root=",
        ),
        (("train/good/1.png", "test/bad/2.png"), "**/*.png", "'test/bad/2.png' is no image to tra"),
        (("ground_truth/bad/2.png",), "*/*/*", "as it lies in 'ground_truth'"),
        (GOOD, "a,c", "'c' matches no image: give a folder"),
        (("a/t.csv",), "a/t.csv", "is no image: for a table set data.name=csv"),
    ],
)
def test_what_may_not_be_normal_is_refused(tmp_path, monkeypatch, files, root, message):
    monkeypatch.chdir(tmp_path)
    for name in files:
        put(Path(name)) if Path(name).suffix in (".png", ".jpg", ".bmp") else put_text(name)
    with pytest.raises(UserError, match=message) as caught:
        [names(root, split) for split in ("train", "test")]
    assert "\n" not in str(caught.value)


def test_several_places_have_no_categories(tmp_path):
    put(tmp_path / "a/1.png")
    assert names(tmp_path, category="a") == ["1.png"]
    assert sources.categories("folder", f"{tmp_path}/a/*") == [""]
    with pytest.raises(UserError, match=r"data\.category='x': data\.root .* has none, use ''"):
        names(f"{tmp_path}/a/*", category="x")


@pytest.mark.parametrize("root", ["a,b", "a/*,b/*", "a/*.png,b", "?/*"])
def test_names_stay_when_all_is_moved(tmp_path, root):
    for place in ("here", "there"):
        for name in ("a/1.png", "b/2.png"):
            put(tmp_path / place / name)
        where = ",".join(str(tmp_path / place / part) for part in root.split(","))
        paths = sources.build("folder", where, "", "train").paths
        assert fingerprint.names(paths, where) == ["a/1.png", "b/2.png"]


def test_a_table_of_training_images_alone(tmp_path):
    put(tmp_path / ROWS[0][0])
    write_table(tmp_path, ROWS[:1])
    assert len(sources.build("csv", tmp_path, "", "train")) == 1
    assert len(sources.build("csv", tmp_path, "", "test")) == 0
    (tmp_path / ROWS[0][0]).unlink()
    with pytest.raises(UserError, match="has no file"):
        sources.build("csv", tmp_path, "", "train")
