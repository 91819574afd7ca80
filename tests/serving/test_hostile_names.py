"""File names that mean something to a spreadsheet, a terminal, Windows or nobody; and no images."""

import csv
import os
import socket

import pytest

from flowad_jax.errors import UserError
from flowad_jax.serving import command, outputs, places
from tests.serving.test_predict import detector, lines, picture, predict, summary  # noqa: F401

NAMES = [
    os.fsdecode(name)
    for name in (
        b"=1+1.png",
        b'=HYPERLINK("http:x","y").png',
        b"+cmd|' -C calc'!A0.png",
        b"-2+3.png",
        b"@SUM(A1).png",
        b"\t=1.png",
        b"\r=1.png",
        b"two\nlines.png",
        b"\x1b[31mred\x1b[0m.png",
        b"\x07\x08bell.png",
        b"not \xff utf-8.png",
        b"\xc3\x28.png",
        b"\xed\xa0\x80 surrogate.png",
        "right-to-left \u202egnp.png".encode(),
        "line \u2028 separator.png".encode(),
        "\u87ba\u4e1d\u2713\U0001f529.png".encode(),
        b"CON.png",
        b"nul.tar.png",
        b"com1.png",
        "LPT\u00b9.png".encode(),
        b"trailing dots....png",
        b" leading and trailing .png",
        b"quote\"s, and 'commas;.png",
        b"<script>alert(1)<.png",
        b"[a-z]*?.png",
        b"--output=x.png",
        b"$(id) `id` %PATH% !x.png",
        b"~.png",
        b"x" * 251 + b".png",
        b"\\back\\slash.png",
        b"a:stream.png",
    )
]
TAKEN = {"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(10)}


def test_hostile_names_are_judged_and_found_again(tmp_path, detector, capsys):  # noqa: F811
    assert len(NAMES) > 30
    for name in NAMES:
        picture(tmp_path / "in" / name)
    broken = tmp_path / "in" / os.fsdecode(b"=broken\n\xfe.png")
    broken.write_text("no image")
    assert predict(tmp_path) == command.FAULTY
    found = lines(tmp_path)
    by_name = {os.fsencode(os.path.basename(line["path"])): line for line in found}
    assert set(by_name) == {os.fsencode(name) for name in [*NAMES, broken.name]}
    drawn = [line[kind] for line in found if "error" not in line for kind in outputs.FOLDERS]
    assert len({place.lower() for place in drawn}) == len(drawn)
    for place in drawn:
        stem = os.path.basename(place).split(".")[0].lower()
        assert (tmp_path / "out" / place).is_file()
        assert place.isascii()
        assert stem not in TAKEN
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert (shown.out + shown.err).replace("\n", "").isprintable()
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) == len(NAMES) + 2
    assert not [cell for row in rows for cell in row if cell.startswith(tuple("=+-@\t\r\n"))]


def test_hostile_names_come_relative_too(tmp_path, detector, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    names = [name for name in NAMES if name[0] in "=+@\t\r"]
    for name in names:
        picture(tmp_path / name)
    assert predict(tmp_path, *names) == 0
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert paths == ["'" + name for name in names]
    assert [line["path"] for line in lines(tmp_path)] == names


def test_an_output_may_be_called_anything(tmp_path, detector, monkeypatch, capfd):  # noqa: F811
    picture(tmp_path / "in" / "a.png")
    monkeypatch.chdir(tmp_path)
    out = os.fsdecode(b"out \xff\x1b[31m")
    for _ in range(2):
        assert command.run(command.Job("run", ["in"], out)) == 0
    assert os.path.exists(os.path.join(out, "predictions.jsonl"))
    assert r"see out \udcff\x1b[31m" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["con", "CON", "Aux", "nul", "COM1", "lpt9", "COM\u00b9", "-prn."])
def test_names_that_windows_keeps_are_avoided(name):
    safe = places.safe_name(name)
    assert safe.lower() not in TAKEN
    assert safe.startswith("image-")


@pytest.mark.parametrize("name", ["console", "com", "com10", "nul1", "aux-2"])
def test_other_names_stay(name):
    assert places.safe_name(name) == name


def test_what_is_no_image_is_counted_and_named(tmp_path, detector, capsys):  # noqa: F811
    folder = tmp_path / "in"
    picture(folder / "a.png")
    picture(folder / "sub" / "b.png")
    (folder / "sub" / "notes.txt").write_text("x")
    (folder / "c.pdf").write_text("x")
    (folder / ".hidden.txt").write_text("x")
    (folder / "broken.png").symlink_to("nowhere.png")
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(folder / "pipe.png")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket.png"))
    server.close()
    assert predict(tmp_path) == 0
    names = ["linked", "broken.png", "c.pdf", "pipe.png", "socket.png", "sub/notes.txt"]
    told = summary(tmp_path)
    assert told["images"] == 2
    assert told["skipped"]["count"] == 6
    assert told["skipped"]["first"] == [str(folder / name) for name in names[:5]]
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith(f"6 skipped, which are no images: {folder / 'linked'}, ")
    assert out[1].endswith(", ...")


def test_a_pattern_counts_too(tmp_path, detector):  # noqa: F811
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "notes.txt").write_text("x")
    (tmp_path / "in" / "b.png").symlink_to("nowhere")
    for pattern, count in (("*", 2), ("*.png", 1), ("a*", 0)):
        assert predict(tmp_path, tmp_path / "in" / pattern) == 0
        told = summary(tmp_path)
        assert (told["images"], told["skipped"]["count"]) == (1, count)


def test_an_image_is_judged_once_however_its_folder_is_spelled(tmp_path, detector):  # noqa: F811
    image = picture(tmp_path / "in" / "a.png")
    (tmp_path / "link").symlink_to("in")
    spelled = (image, tmp_path / "link", f"{tmp_path}/in/../link/*.png", f"{tmp_path}/./in/")
    assert predict(tmp_path, *spelled) == 0
    assert [line["path"] for line in lines(tmp_path)] == [str(image)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path, detector):  # noqa: F811
    picture(tmp_path / "in" / "a.png")
    closed = tmp_path / "in" / "closed"
    closed.mkdir(mode=0)
    assert predict(tmp_path) == 0
    assert summary(tmp_path)["skipped"] == {"count": 1, "first": [str(closed)]}
    with pytest.raises(UserError, match="cannot list"):
        predict(tmp_path, closed)


def test_many_equal_names_take_no_more_looks_each(tmp_path, monkeypatch):
    """Names without a Latin letter are all alike: of 5,000 images the last took 5,000 looks."""
    looks = []
    is_taken = places.Places._is_taken
    monkeypatch.setattr(
        places.Places, "_is_taken", lambda self, name: looks.append(name) or is_taken(self, name)
    )
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "image-3.npy").touch()  # somebody else's
    given = places.Places(tmp_path, {"map": ".npy"})
    names = [given.of(f"{number}/写真.png")["map"] for number in range(300)]
    assert names[:3] == ["maps/image.npy", "maps/image-2.npy", "maps/image-4.npy"]
    assert len(set(names)) == 300
    assert given.of("7/写真.png")["map"] == names[7]
    assert len(looks) < 700
