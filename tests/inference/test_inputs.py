"""What predict.py takes for an image: files, folders, patterns, links, pipes."""

import os
import socket

import pytest

from flowad_jax.errors import UserError
from tests.inference.stub import lines, picture, predict, summary


def test_inputs_may_be_files_folders_and_patterns(tmp_path, detector):
    for name in ("a,b.png", "c/1.png", "c/2.png", "c/.hidden.png", "d/3.jpg", "d/e/4.png", "f.dat"):
        path = tmp_path / name
        picture(path.with_suffix(".png")).rename(path)
    (tmp_path / "c" / "notes.txt").write_text("no image, and nobody says so")
    wanted = [f"{tmp_path}/a,b.png", f"{tmp_path}/c,{tmp_path}/d/**/*", f"{tmp_path}/c/1.png"]
    assert predict(tmp_path, *wanted, f"{tmp_path}/f.dat") == 0
    names = [os.path.relpath(line["path"], tmp_path) for line in lines(tmp_path)]
    assert names == ["a,b.png", "c/1.png", "c/2.png", "d/3.jpg", "d/e/4.png", "f.dat"]


@pytest.mark.parametrize("missing", ["nothing.png", "empty", "*.png", ","])
def test_no_image_changes_nothing(tmp_path, detector, missing):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"matches no image|--input is empty"):
        predict(tmp_path, missing if missing == "," else tmp_path / missing)
    assert not (tmp_path / "out").exists()


def test_output_inside_the_input_is_no_input(tmp_path, detector):
    picture(tmp_path / "a.png")
    for _ in range(2):
        assert predict(tmp_path, tmp_path) == 0
        assert [line["path"] for line in lines(tmp_path)] == [str(tmp_path / "a.png")]


def test_what_is_no_image_is_counted_and_named(tmp_path, detector, capsys):
    folder = tmp_path / "in"
    picture(folder / "a.png")
    picture(folder / "sub" / "b.png")
    for name in ("sub/notes.txt", "c.pdf", ".hidden.txt"):
        (folder / name).write_text("x")
    (folder / "broken.png").symlink_to("nowhere.png")
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.png"))
    assert predict(tmp_path) == 0
    names = ["linked", "broken.png", "c.pdf", "pipe.png", "socket.png", "sub/notes.txt"]
    found = summary(tmp_path)
    assert found["images"] == 2
    assert found["skipped"] == {"count": 6, "first": [str(folder / name) for name in names[:5]]}
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith(f"6 skipped, which are no images: {folder / 'linked'}, ")
    assert out[1].endswith(", ...")
    for pattern, count in (("*", 4), ("*.png", 3), ("a*", 0)):
        assert predict(tmp_path, folder / pattern) == 0
        found = summary(tmp_path)
        assert (found["images"], found["skipped"]["count"]) == (1, count), pattern


def test_an_image_is_judged_once_however_its_folder_is_spelled(tmp_path, detector):
    image = picture(tmp_path / "in" / "a.png")
    (tmp_path / "link").symlink_to("in")
    spelled = (image, tmp_path / "link", f"{tmp_path}/in/../link/*.png", f"{tmp_path}/./in/")
    assert predict(tmp_path, *spelled) == 0
    assert [line["path"] for line in lines(tmp_path)] == [str(image)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path, detector):
    picture(tmp_path / "in" / "a.png")
    closed = tmp_path / "in" / "closed"
    closed.mkdir(mode=0)
    assert predict(tmp_path) == 0
    assert summary(tmp_path)["skipped"] == {"count": 1, "first": [str(closed)]}
    with pytest.raises(UserError, match="cannot list"):
        predict(tmp_path, closed)
