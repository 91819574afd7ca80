"""File names that mean something to a spreadsheet, a terminal, Windows or nobody; and no images."""

import csv
import os
import unicodedata
from pathlib import Path

import pytest

from flowad_jax.inference import job, outputs
from flowad_jax.inference.output_paths import OutputPaths, safe_name
from tests.inference.stub import lines, picture, predict

NAMES = [
    os.fsdecode(name)
    for name in (
        b"=1+1.png", b'=HYPERLINK("http:x","y").png', b"+cmd|' -C calc'!A0.png", b"-2+3.png",
        b"@SUM(A1).png", b"\t=1.png", b"\r=1.png", b"two\nlines.png", b"\x1b[31mred\x1b[0m.png",
        b"\x07\x08bell.png", b"not \xff utf-8.png", b"\xc3\x28.png", b"\xed\xa0\x80 surrogate.png",
        "right-to-left \u202egnp.png".encode(), "line \u2028 separator.png".encode(),
        "\u87ba\u4e1d\u2713\U0001f529.png".encode(), b"CON.png", b"nul.tar.png", b"com1.png",
        "LPT\u00b9.png".encode(), b"trailing dots....png", b" leading and trailing .png",
        b"quote\"s, and 'commas;.png", b"<script>alert(1)<.png", b"[a-z]*?.png", b"--output=x.png",
        b"$(id) `id` %PATH% !x.png", b"~.png", b"x" * 251 + b".png", b"\\back\\slash.png",
        b"a:stream.png",
    )
]  # fmt: skip
TAKEN = {"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(10)}


def test_hostile_names_are_judged_and_found_again(tmp_path, detector, capsys):
    assert len(NAMES) > 30
    for name in NAMES:
        picture(tmp_path / "in" / name, size=(1, 1))
    broken = tmp_path / "in" / os.fsdecode(b"=broken\n\xfe.png")
    broken.write_text("no image")
    assert predict(tmp_path) == job.FAULTY
    found = lines(tmp_path)
    by_name = {os.fsencode(os.path.basename(line["path"])): line for line in found}
    assert set(by_name) == {os.fsencode(name) for name in [*NAMES, broken.name]}
    drawn = [line[kind] for line in found if "error" not in line for kind in outputs.FOLDERS]
    assert len({place.lower() for place in drawn}) == len(drawn)
    for place in drawn:
        assert (tmp_path / "out" / place).is_file()
        assert all(unicodedata.category(x)[0] in "LMN" for x in Path(place).stem if x not in "-_")
        assert len(os.path.basename(place).encode()) < 200
        assert os.path.basename(place).split(".")[0].lower() not in TAKEN
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert (shown.out + shown.err).replace("\n", "").isprintable()
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) == len(NAMES) + 2
    assert not [cell for row in rows for cell in row if cell.startswith(tuple("=+-@\t\r\n"))]


def test_hostile_names_come_relative_too_and_the_output_is_called_anything(
    tmp_path, detector, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    names = [name for name in NAMES if name[0] in "=+@\t\r"]
    for name in names:
        picture(tmp_path / name)
    out = os.fsdecode(b"out \xff\x1b[31m")
    for _ in range(2):
        assert job.run(job.PredictArgs("run", names, out)) == 0
    assert r"see out \udcff\x1b[31m" in capfd.readouterr().out
    os.rename(out, "out")
    with open("out/predictions.csv", newline="", encoding="utf-8") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert paths == ["'" + name for name in names]
    assert [line["path"] for line in lines(tmp_path)] == names


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        *((name, name) for name in ("console", "com", "com10", "nul1", "aux-2")),
        *((name, f"image-{name}") for name in ("con", "CON", "Aux", "nul", "COM1", "lpt9")),
        *((name, "image") for name in ("..", "...", "-", "~", "\u202e", "\udcff", "✓🔩")),
        ("COM\u00b9", "image-COM1"),
        ("ＣＯＮ", "image-CON"),
        ("-prn.", "image-prn"),
        ("con\n", "image-con"),
        ("a/b", "a-b"),
        ("Größe 螺丝, v1.2 [a]", "Größe-螺丝-v1-2-a"),
        ("Gro\u0308ße", "Größe"),
        ("螺" * 100, "螺" * 53),
        ("x" * 300, "x" * 80),
    ],
)
def test_names_that_are_safe_everywhere(name, safe):
    assert safe_name(name) == safe


def test_equal_names_do_not_meet_and_take_no_more_looks_each(tmp_path, monkeypatch):
    """Names without a letter are all alike: of 5,000 images the last took 5,000 looks."""
    looks, is_taken = [], OutputPaths._is_taken
    monkeypatch.setattr(
        OutputPaths, "_is_taken", lambda self, name: looks.append(name) or is_taken(self, name)
    )
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "image-3.npy").touch()  # somebody else's
    given = OutputPaths(tmp_path, {"map": ".npy"})
    names = [given.of(f"{number}/✓.png")["map"] for number in range(300)]
    assert names[:3] == ["maps/image.npy", "maps/image-2.npy", "maps/image-4.npy"]
    assert len(set(names)) == 300
    assert given.of("7/✓.png")["map"] == names[7]
    assert len(looks) < 700
    like = ("a/x.png", "b/x.png", "b/X.bmp", "b/x-2.png", "x.jpg", "é.png", "É.png", "e\u0301.bmp")
    assert len({unicodedata.normalize("NFD", given.of(name)["map"].lower()) for name in like}) == 8
