"""Only regular files are opened, without waiting for anyone; what a name hides is not acted on."""

import csv
import os
import socket

import pytest

from flowad_jax.errors import UserError
from flowad_jax.files import csv_row, open_regular, spreadsheet_safe


def test_regular_file_and_link_to_one(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"content")
    (tmp_path / "link.bin").symlink_to(tmp_path / "a.bin")
    for name in ("a.bin", "link.bin"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


def test_named_pipe_that_takes_the_place_of_a_file_at_the_last_moment(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "file").write_bytes(b"")
    status = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda *_: status)
    with pytest.raises(OSError, match="it is a named pipe, not a file"):
        open_regular(tmp_path / "a.png")


def test_what_is_no_file_is_named_and_does_not_block(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path has a short limit
    os.mkfifo("pipe.png")
    os.symlink("pipe.png", "link.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    for name, fault, words in (
        ("pipe.png", OSError, "it is a named pipe, not a file"),
        ("link.png", OSError, "it is a named pipe, not a file"),
        ("socket.png", OSError, "it is a socket, not a file"),
        ("/dev/zero", OSError, "it is a device, not a file"),
        (".", IsADirectoryError, "Is a directory"),
        ("gone.png", FileNotFoundError, "No such file"),
    ):
        with pytest.raises(fault, match=words):
            open_regular(name)


@pytest.mark.parametrize(
    "cell",
    ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "-x.png", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1"],
)
def test_cells_that_begin_like_formulas_are_marked_as_text(cell):
    assert spreadsheet_safe(cell) == "'" + cell


@pytest.mark.parametrize("cell", [-0.5, None, True, "-0.5", "+3", "-1e-7", "a=b", "", " x", "1-2"])
def test_numbers_and_plain_text_stay_cells_as_they_are(cell):
    assert spreadsheet_safe(cell) is cell


def test_message_is_one_line_whatever_the_file_is_called():
    name = "a\nb\x1b[31m\u202e" + os.fsdecode(b"\xff")
    assert str(UserError(f"cannot read '{name}'")) == r"cannot read 'a\nb\x1b[31m\u202e\udcff'"


def test_rows_are_read_back_cell_by_cell():
    cells = ["a\rb", "c\nd", "e\r\nf", 'g"h', "i,j", "", "=k"]
    text = csv_row(cells)
    assert next(csv.reader([text])) == [*cells[:-1], "'=k"]
    assert text.endswith("\n")
    assert not text.endswith("\r\n")
    assert csv_row([1.5, None, True]) == "1.5,,True\n"
