"""Sets prepared with TFDS: the records of the folder, in its order, without TensorFlow."""

import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import __main__ as command
from flowad_jax.data import sources, tfds_builder, tfds_source
from flowad_jax.data.record import count
from flowad_jax.data.sets import folder
from flowad_jax.errors import UserError
from tests.data import layouts


def write(root):
    """Two categories of grey, colour and 16-bit images, PNG and JPEG mixed."""
    for category in ("screws", "7"):
        for i in range(12):
            layouts.photograph(root / category / "train" / "good" / f"{i}.jpg")
        layouts.photograph(root / category / "test" / "good" / "b.png", mode="L")
        deep = np.random.default_rng(0).integers(0, 65536, layouts.DEFECT.shape, np.uint16)
        (root / category / "test" / "scratch").mkdir(exist_ok=True)
        Image.fromarray(deep).save(root / category / "test" / "scratch" / "a.png")
        levels = np.where(layouts.DEFECT, 255, 90 * np.eye(*layouts.DEFECT.shape))
        truth = root / category / "ground_truth" / "scratch" / "a_mask.png"
        layouts.mask(truth, value=levels, pixels=levels > 0)
    return root


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "raw")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Both categories, prepared once."""
    target = tmp_path_factory.mktemp("tfds") / "prepared"
    for category in ("screws", "7"):
        tfds_builder.prepare("folder", write(target.parent / "raw"), category, target, {})
    return target


@pytest.fixture
def prepared(written, tmp_path):
    """A copy that may be changed."""
    return shutil.copytree(written, tmp_path / "prepared")


def assert_same(one, other):
    assert count(one) == count(other)
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
def test_records_are_those_of_the_folder_in_its_order(written, split):
    for category in ("screws", "7"):
        expected = folder.build(written.parent / "raw", category, split)
        assert_same(sources.build("tfds:folder", written, category, split), expected)
    assert sources.categories("tfds:folder", written) == ["7", "screws"]


def test_threads_and_copies_read_the_same(written):
    expected = folder.build(written.parent / "raw", "screws", "train")
    copied = pickle.loads(pickle.dumps(sources.build("tfds:folder", written, "screws", "train")))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(copied.__getitem__, [*range(12)] * 4))
    for i, record in enumerate(found):
        np.testing.assert_array_equal(record.image, expected[i % 12].image)


def test_reading_needs_no_tensorflow_and_no_jax(written):
    code = (
        "import sys; from flowad_jax.data import sources;"
        f"sources.build('tfds:folder', {str(written)!r}, '7', 'test')[0];"
        "sys.exit('tensorflow' in sys.modules or 'jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_set_without_categories_and_with_its_own_validation(tmp_path):
    """Textures have categories; the name of one without any must still be a folder's."""
    few = {"train_images": 3, "good_images": 1, "images_per_kind": 1}
    place = tfds_builder.prepare("textures", "", "grass", tmp_path, few)
    assert place == tfds_source.folder(tmp_path, "textures", "grass")
    assert len(sources.build("tfds:textures", tmp_path, "grass", "train")) == 3
    assert tfds_source.folder(tmp_path, "csv", "").parent.name == "default"


def test_options_took_effect_when_it_was_prepared(root, tmp_path):
    target = tmp_path / "strict"
    tfds_builder.prepare("folder", root, "7", target, {"mask_threshold": 127})
    source = sources.build("tfds:folder", target, "7", "test", mask_threshold=127)
    np.testing.assert_array_equal(source[1].mask, layouts.DEFECT)
    with pytest.raises(UserError, match=r"mask_threshold=127, not 0: remove it and prepare it"):
        sources.build("tfds:folder", target, "7", "test", mask_threshold=0)
    with pytest.raises(UserError, match=r"mask_threshold=127, not 0"):
        tfds_builder.prepare("folder", root, "7", target, {})


def test_what_is_there_is_not_written_again(written):
    files = {path: path.stat().st_mtime_ns for path in written.rglob("*") if path.is_file()}
    tfds_builder.prepare("folder", written.parent / "raw", "7", written, {})
    assert files == {p: p.stat().st_mtime_ns for p in written.rglob("*") if p.is_file()}


def test_a_damaged_image_leaves_nothing_that_looks_whole(root):
    (root / "7" / "train" / "good" / "3.jpg").write_bytes(b"no image")
    target = root.parent / "prepared"
    with pytest.raises(UserError, match=r"cannot read '.*3\.jpg'"):
        tfds_builder.prepare("folder", root, "7", target, {})
    assert sources.categories("tfds:folder", target) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda place: (place / "metadata.json").write_text("{"),
        lambda place: (place / "metadata.json").unlink(),
        lambda place: (place / "features.json").write_text("[]"),
        lambda place: (place / "dataset_info.json").unlink(),
        lambda place: next(place.glob("*test*record*")).write_bytes(b"x" * 100),
    ],
)
def test_damage_is_one_line(prepared, spoil):
    spoil(tfds_source.folder(prepared, "folder", "7"))
    with pytest.raises(UserError, match=r"cannot read .*7/1\.0\.0': "):
        sources.build("tfds:folder", prepared, "7", "test")[0]


def test_wrong_names_and_places(written, tmp_path):
    with pytest.raises(UserError, match=r"'nails' was not prepared there, but '7', 'screws'"):
        sources.build("tfds:folder", written, "nails", "test")
    with pytest.raises(UserError, match="has no split 'validation': it has train, test"):
        sources.build("tfds:folder", written, "7", "validation")
    with pytest.raises(UserError, match="unknown name 'foldre': did you mean 'folder'"):
        sources.build("tfds:foldre", written, "7", "test")
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
    assert page.read_text() == command.page(), "flowad data --write=docs/datasets.md"
