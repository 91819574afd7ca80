"""A bundle appears whole or not at all, and takes no other place than that of a bundle."""

import json
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from flowad_jax import archive
from flowad_jax.bundle import card, place
from flowad_jax.errors import UserError


def snapshot(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fill(folder, text="new"):
    """Writes what looks like a bundle."""
    (folder / "model.onnx").write_text(text)
    about = {"written_by": card.WRITTEN_BY, "files": {"model.onnx": {}}}
    (folder / card.CARD).write_text(json.dumps(about))


def write(output, text="new", error=None):
    with place.filling(place.check(str(output))) as folder:
        fill(folder, text)
        if error:
            raise error


@pytest.mark.parametrize("name", ["screws.flowad", "new/deep/screws.flowad", "screws.flowad.zip"])
def test_it_is_written_and_replaced(tmp_path, name):
    for text in ("old", "new"):
        write(tmp_path / name, text)
        left = [path.name for path in tmp_path.iterdir()]
        assert left == [name.split("/")[0]]
        if name.endswith(".zip"):
            with zipfile.ZipFile(tmp_path / name) as packed:
                assert packed.namelist() == [
                    f"screws.flowad/{x}" for x in (card.CARD, "model.onnx")
                ]
                assert packed.read("screws.flowad/model.onnx") == text.encode()
        else:
            assert (tmp_path / name / "model.onnx").read_text() == text
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["screws.flowad", "new/deep/screws.flowad", "screws.zip"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_failure_leaves_what_was_there(tmp_path, name, earlier):
    if earlier:
        write(tmp_path / name, "old")
    before = snapshot(tmp_path)
    for error in (UserError("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            write(tmp_path / name, error=error)
    assert snapshot(tmp_path) == before
    assert bool(list(tmp_path.iterdir())) == earlier


def test_python_may_have_left_its_cache_in_a_bundle(tmp_path):
    write(tmp_path / "a.flowad", "old")
    (tmp_path / "a.flowad" / "__pycache__").mkdir()
    write(tmp_path / "a.flowad")
    assert sorted(os.listdir(tmp_path / "a.flowad")) == [card.CARD, "model.onnx"]


def test_a_link_to_a_bundle_stays_one(tmp_path):
    write(tmp_path / "a.flowad", "old")
    (tmp_path / "link").symlink_to(tmp_path / "a.flowad")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a.flowad" / "model.onnx").read_text() == "new"


def test_other_things_stay(tmp_path):
    """One line says what is in the way."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    (tmp_path / "notes").write_text("mine")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as packed:
        packed.writestr("a/detector.txt", "mine")
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as packed:
        packed.writestr("a/detector.json", '{"written_by": "somebody", "files": {}}')
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / card.CARD).write_text('{"written_by": "somebody", "files": {}}')
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    for name in ("photos", "notes", "other.zip", "foreign.zip", "foreign", "pipe"):
        with pytest.raises(UserError, match="flowad export did not write: name another"):
            place.check(str(tmp_path / name))
    with pytest.raises(UserError, match="--output is empty"):
        place.check("")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_beside_a_bundle_is_not_lost(tmp_path):
    write(tmp_path / "a.flowad")
    (tmp_path / "a.flowad" / "found").mkdir()
    with pytest.raises(UserError, match="holds found beside a bundle: move that away first"):
        place.check(str(tmp_path / "a.flowad"))


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/a.flowad: .*; free some space"):
        write(tmp_path / "file" / "a.flowad")


def test_sigterm_leaves_nothing(tmp_path):
    code = (
        "import os, signal, time\n"
        "from flowad_jax.bundle import place\n"
        f"with place.filling(place.check({str(tmp_path / 'a.flowad')!r})) as folder:\n"
        "    (folder / 'model.onnx').write_text('half')\n"
        f"    os.kill(os.getpid(), {int(signal.SIGTERM)})\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, b"")
    assert list(tmp_path.iterdir()) == []


def test_archives_depend_on_nothing_but_what_they_hold(tmp_path, monkeypatch):
    arrays = {"image": np.arange(6, dtype=np.uint8).reshape(2, 3).T, "score": np.array([np.nan])}
    archive.save_arrays(tmp_path / "a.npz", arrays)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 0, 0, 0, 0, 0, 0))
    archive.save_arrays(tmp_path / "b.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert found.files == [*arrays]
        for name, value in arrays.items():
            np.testing.assert_array_equal(found[name], value)
