"""Tables as spreadsheets and hands write them, damaged ones, and paths that leave their folder."""

import pytest

from flowad_jax.data import _table
from flowad_jax.errors import LayoutError, UserError

COLUMNS = ("image", "split")
FIX = "mend it"


def read(file, content, **options):
    file.write_bytes(content)
    rows = _table.rows(file, COLUMNS, FIX, delimiters=",;\t", **options)
    return [(row.where.rpartition(" ")[2], row.cells) for row in rows]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("between", [b",", b";", b"\t", b" ; "])
def test_line_ends_marks_and_delimiters(tmp_path, end, mark, between):
    lines = [[b"split", b"image", b"note"], [b"train", b"a b.png", b""], [b""], [b"", b"", b""]]
    lines += [[b"test", b'"c;,.png"', b'"x\ty"'], [b""]]
    if between == b" ; ":
        lines[4] = [b"test", b"c, .png", b"x y"]
    rows = read(tmp_path / "a.csv", mark + end.join(between.join(line) for line in lines))
    assert [line for line, _ in rows] == ["2", "5"]
    assert rows[0][1] == {"split": "train", "image": "a b.png", "note": ""}
    assert rows[1][1]["image"] == ("c, .png" if between == b" ; " else "c;,.png")


def test_columns_that_do_not_matter_may_be_there_twice(tmp_path):
    header = b"image,split,note,note\n"
    assert read(tmp_path / "a.csv", header + b"a,train,1,2\n")[0][1]["image"] == "a"
    with pytest.raises(UserError, match="has the column 'note' twice: mend it"):
        read(tmp_path / "a.csv", header, optional=("note",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column 'image'"),
        (b"image,label\n", "has no column 'split'"),
        (b"image;Split\na;b\n", "has no column 'split'"),
        (b"image,split,image\n", "has the column 'image' twice"),
        (b"image,split\na,b\nc\n", "line 3 has not 2 cells"),
        (b"image,split\na,b,c\n", "line 2 has not 2 cells"),
        (b'image,split\n"a\nb",\n"c\nd"\n', "line 5 has not 2 cells"),
        ("image,split\n".encode("utf-16"), "cannot read .*0xff"),
        (b"image,split\n\xe4.png,train\n", "cannot read .*0xe4"),
        (b'image,split\n"' + b"x" * 200_000, "cannot read .*field"),
    ],
)
def test_a_damaged_table(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "a.csv", content)
    assert str(caught.value).endswith(f": {FIX}")
    assert "\n" not in str(caught.value)


def test_a_table_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(UserError, match=r"cannot read '.*a\.csv': .*Permission denied"):
        _table.rows(tmp_path / "a.csv", COLUMNS, FIX)


def test_paths_stay_in_their_folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "in/a.png"):
        (tmp_path / name).write_bytes(b"")
    assert _table.below(tmp_path / "in", "here", "./a.png", FIX) == tmp_path / "in" / "a.png"
    for name in ("../a.png", "x/../../a.png", str(tmp_path / "a.png"), "", "."):
        with pytest.raises(UserError, match=r"here: .* is no path of a file below '.*': mend it$"):
            _table.below(tmp_path / "in", "here", name, FIX)
    for name in ("b.png", "\0", "x" * 5000):
        with pytest.raises(LayoutError, match=r"here: '.*in' has no file '.*': unpack"):
            _table.below(tmp_path / "in", "here", name, FIX)
    with pytest.raises(LayoutError, match=r"has no file 'b': look again$"):
        _table.below(tmp_path, "here", "b", FIX, "look again")
