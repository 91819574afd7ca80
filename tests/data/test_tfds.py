"""Sets prepared with TFDS: the records of the folder, in its order, without TensorFlow."""

import pickle
import re
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import __main__ as command
from flowad_jax.data import folder, sources, tfds, tfds_builder
from flowad_jax.errors import UserError

SIZE = (23, 17)


def photograph(path, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    pixels = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    if mode == "I;16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(path)
    else:
        Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def root(tmp_path):
    """Two categories of grey, colour and 16-bit images, PNG and JPEG mixed."""
    for category in ("screws", "7"):
        for i in range(12):
            photograph(tmp_path / "raw" / category / "train" / "good" / f"{i}.jpg")
        photograph(tmp_path / "raw" / category / "test" / "good" / "b.png", "L")
        photograph(tmp_path / "raw" / category / "test" / "scratch" / "a.png", "I;16")
        truth = tmp_path / "raw" / category / "ground_truth" / "scratch" / "a_mask.png"
        truth.parent.mkdir(parents=True)
        pixels = np.zeros(SIZE[::-1], np.uint8)
        pixels[3:7, 4:9], pixels[10, 10] = 255, 90
        Image.fromarray(pixels).save(truth)
    return tmp_path / "raw"


@pytest.fixture
def prepared(root):
    target = root.parent / "prepared"
    for category in ("screws", "7"):
        tfds_builder.prepare("folder", root, category, target, {})
    return target


def assert_same(one, other):
    assert one.describe() == other.describe()
    assert (one.kinds, one.paths) == (other.kinds, other.paths)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.labels.dtype == other.labels.dtype
    for i in range(len(one)):
        a, b = one[i], other[i]
        assert (a.label, a.kind, a.path) == (b.label, b.kind, b.path)
        for x, y in ((a.image, b.image), (a.mask, b.mask)):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype


@pytest.mark.parametrize("split", ["train", "test"])
def test_records_are_those_of_the_folder_in_its_order(root, prepared, split):
    for category in ("screws", "7"):
        expected = folder.build(root, category, split)
        assert_same(sources.build("tfds:folder", prepared, category, split), expected)
    assert sources.categories("tfds:folder", prepared) == ["7", "screws"]


def test_threads_and_copies_read_the_same(root, prepared):
    expected = folder.build(root, "screws", "train")
    copied = pickle.loads(pickle.dumps(sources.build("tfds:folder", prepared, "screws", "train")))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(copied.__getitem__, [*range(12)] * 4))
    for i, record in enumerate(found):
        np.testing.assert_array_equal(record.image, expected[i % 12].image)


def test_reading_needs_no_tensorflow_and_no_jax(prepared):
    code = (
        "import sys; from flowad_jax.data import sources;"
        f"sources.build('tfds:folder', {str(prepared)!r}, '7', 'test')[0];"
        "sys.exit('tensorflow' in sys.modules or 'jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_set_without_categories_and_with_its_own_validation(tmp_path):
    """Textures have categories; the name of one without any must still be a folder's."""
    place = tfds_builder.prepare("textures", "", "grass", tmp_path, {"train_images": 3})
    assert place == tfds.folder(tmp_path, "textures", "grass")
    assert len(sources.build("tfds:textures", tmp_path, "grass", "train")) == 3
    assert tfds.folder(tmp_path, "csv", "").parent.name == "default"


def test_options_took_effect_when_it_was_prepared(root, tmp_path):
    target = tmp_path / "strict"
    tfds_builder.prepare("folder", root, "7", target, {"mask_threshold": 127})
    source = sources.build("tfds:folder", target, "7", "test", mask_threshold=127)
    assert source[1].mask.sum() == 4 * 5
    with pytest.raises(UserError, match=r"mask_threshold=127, not 0: remove it and prepare it"):
        sources.build("tfds:folder", target, "7", "test", mask_threshold=0)
    with pytest.raises(UserError, match=r"mask_threshold=127, not 0"):
        tfds_builder.prepare("folder", root, "7", target, {})


def test_what_is_there_is_not_written_again(root, prepared):
    files = {path: path.stat().st_mtime_ns for path in prepared.rglob("*") if path.is_file()}
    tfds_builder.prepare("folder", root, "7", prepared, {})
    assert files == {p: p.stat().st_mtime_ns for p in prepared.rglob("*") if p.is_file()}


def test_a_damaged_image_leaves_nothing_that_looks_whole(root):
    (root / "7" / "train" / "good" / "3.jpg").write_bytes(b"no image")
    target = root.parent / "prepared"
    with pytest.raises(UserError, match=r"cannot read '.*3\.jpg'"):
        tfds_builder.prepare("folder", root, "7", target, {})
    assert sources.categories("tfds:folder", target) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda place: (place / "metadata.json").write_text("{"), "cannot read .*7/1.0.0': "),
        (lambda place: (place / "metadata.json").unlink(), "cannot read .*7/1.0.0': "),
        (lambda place: (place / "features.json").write_text("[]"), "cannot read .*7/1.0.0': "),
        (lambda place: (place / "dataset_info.json").unlink(), "cannot read .*7/1.0.0': "),
        (
            lambda place: next(place.glob("*test*record*")).write_bytes(b"x" * 100),
            "cannot read .*7/1.0.0': ",
        ),
    ],
)
def test_damage_is_one_line(prepared, spoil, message):
    spoil(tfds.folder(prepared, "folder", "7"))
    with pytest.raises(UserError, match=message) as caught:
        sources.build("tfds:folder", prepared, "7", "test")[0]
    assert "\n" not in str(caught.value)


def test_wrong_names_and_places(prepared, tmp_path):
    with pytest.raises(UserError, match=r"'nails' was not prepared there, but '7', 'screws'"):
        sources.build("tfds:folder", prepared, "nails", "test")
    with pytest.raises(UserError, match="has no split 'validation': it has train, test"):
        sources.build("tfds:folder", prepared, "7", "validation")
    with pytest.raises(UserError, match="unknown name 'foldre': did you mean 'folder'"):
        sources.build("tfds:foldre", prepared, "7", "test")
    with pytest.raises(UserError, match="does not exist"):
        sources.build("tfds:folder", tmp_path / "none", "7", "test")


def run(capsys, *words):
    code = 0
    try:
        command.main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr()


def test_the_command_prepares_all_categories(root, capsys):
    target = root.parent / "target"
    words = ("--name=folder", f"--root={root}", f"--prepare={target}")
    code, said = run(capsys, *words, "--set=masks=require")
    assert code == 0
    assert [line.split(":")[0] for line in said.out.splitlines()] == ["7", "screws"]
    assert sources.categories("tfds:folder", target) == ["7", "screws"]
    with pytest.raises(UserError, match="masks='require', not 'none'"):
        sources.build("tfds:folder", target, "7", "test", masks="none")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prepare=x",), "--prepare: say which data set with --name"),
        (("--name=folder", "--root=none", "--prepare=x"), "data.root 'none' does not exist"),
        (("--name=folder", "--root=.", "--prepare=x", "--category=a", "--set=b"), "--set=b: write"),
        (("--name=textures", "--prepare=x", "--set=colour=1"), "--set: .*colour"),
        (("--name=fodler",), "did you mean 'folder'"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(capsys, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    code, said = run(capsys, *words)
    assert code == 1
    assert len(said.err.splitlines()) == 1
    assert re.search(message, said.err)
    assert not list(tmp_path.iterdir())


def test_the_page_is_what_the_command_writes():
    page = Path(__file__).parents[2] / "docs" / "datasets.md"
    assert page.read_text() == command.page(), "python -m flowad_jax.data --write=docs/datasets.md"
