"""Files of others: what has the wrong shape is refused in one line that names file and key."""

import json
import os

import pytest

from flowad_jax.errors import UserError
from flowad_jax.schema import (
    BOOLEAN,
    DEPTH,
    TEXT,
    array,
    check,
    integer,
    nullable,
    number,
    parse,
    read,
    read_lines,
    table,
)

RUN = table({"folder": TEXT, "seed": integer(0, 9)}, {"done": BOOLEAN}, others=False)
RUNS = table(
    {"runs": array(RUN, most=3)},
    {
        "rate": number(0, 1),
        "limit": number(above=0),
        "kind": {"enum": ["a", "b"]},
        "word": nullable(TEXT),
        "name": {"type": "string", "pattern": "^[a-z]+$", "description": "a plain word"},
    },
)
GOOD = {"runs": [{"folder": "x", "seed": 3, "done": True}], "rate": 0.5, "word": None, "more": [1]}


def changed(**values):
    return json.dumps(GOOD | values)


def deep(levels):
    return '{"runs": [], "more": ' + "[" * levels + "]" * levels + "}"


REFUSED = {
    "no JSON": ("{", "cannot be read"),
    "nothing": ("", "cannot be read"),
    "no UTF-8": (b'{"runs": ["\xff"]}', "cannot be read"),
    "a list": ("[1]", r"cannot be read \(it is \[1\], but must be a table\): do"),
    "null": ("null", "it is None, but must be a table"),
    "text": ('"x"', "it is 'x', but must be a table"),
    "deep": (deep(DEPTH), "nested too deeply"),
    "deeper": (deep(100_000), "nested too deeply"),
    "deep text": ('{"runs": ' * 100_000, "nested too deeply|cannot be read"),
    "NaN": ('{"runs": [], "rate": NaN}', "'NaN' is no finite number"),
    "infinity": ('{"runs": [], "rate": -Infinity}', "'-Infinity' is no finite number"),
    "overflow": ('{"runs": [], "rate": 1e999}', "'1e999' is no finite number"),
    "huge": ('{"runs": [], "rate": 9' + "9" * 9999 + "}", "is too large"),
    "twice": ('{"runs": [], "runs": []}', "the key 'runs' twice"),
    "missing": ("{}", "file has no runs: do this"),
    "missing below": (changed(runs=[{"folder": "x"}]), r"has no runs\.0\.seed: do this"),
    "missing two": (changed(runs=[{}]), r"has no runs\.0\.folder, runs\.0\.seed: do"),
    "unknown": (changed(runs=[{"folder": "x", "seed": 1, "sed": 2}]), r"unknown key runs\.0\.sed:"),
    "a number for text": (changed(runs=[{"folder": 1, "seed": 1}]), r"runs\.0\.folder=1: .* text"),
    "a row": (changed(runs=[7]), r"runs\.0=7: must be a table; do this"),
    "a fraction": (changed(runs=[{"folder": "x", "seed": 1.0}]), r"seed=1\.0: must be a whole"),
    "a truth": (changed(runs=[{"folder": "x", "seed": True}]), "seed=True: must be a whole"),
    "too small": (changed(runs=[{"folder": "x", "seed": -1}]), "seed=-1: must be 0 or more"),
    "too large": (changed(rate=1.5), r"rate=1\.5: must be 1 or less; do this"),
    "too many": (changed(runs=[{"folder": "x", "seed": 1}] * 4), "must be a list of 3 or fewer"),
    "not above": (changed(limit=0), "limit=0: must be greater than 0"),
    "no choice": (changed(kind="c"), "kind='c': must be one of 'a', 'b'"),
    "null for a number": (changed(rate=None), "rate=None: must be a finite number"),
    "neither": (changed(word=3), "word=3: must be text or null"),
    "no word": (changed(name="a\nb"), r"name='a\\nb': must be a plain word"),
    "long": (changed(name="x" * 10**6 + "!"), "must be a plain word"),
}


def test_what_fits_is_returned(tmp_path):
    (tmp_path / "file").write_text(json.dumps(GOOD))
    assert read(tmp_path / "file", RUNS, "do this") == GOOD
    check(GOOD | {"runs": ()}, "", RUNS)  # a config has tuples


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_line(tmp_path, case):
    content, message = REFUSED[case]
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        read(tmp_path / "file", RUNS, "do this")
    text = str(refused.value)
    assert text.isprintable()
    assert text.startswith(str(tmp_path / "file"))
    assert text.endswith("do this")
    assert len(text) < 400


def test_what_is_no_file_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none", "/dev/zero"):
        with pytest.raises(UserError, match="cannot be read"):
            read(path, RUNS, "do this")


def test_a_file_is_bounded(tmp_path, monkeypatch):
    (tmp_path / "file").write_text(json.dumps(GOOD))
    monkeypatch.setattr("flowad_jax.schema.LIMIT", 20)
    with pytest.raises(UserError, match="more than"):
        read(tmp_path / "file", RUNS, "do this")


def test_lines(tmp_path):
    file, row = tmp_path / "rows", json.dumps({"folder": "x", "seed": 1})
    for end in ("", "\n", '\n{"fold', "\n\0\0"):  # written whole, or cut off by a crash
        file.write_text(f"{row}\n{row}{end}")
        assert read_lines(file, RUN, "remove that line") == [json.loads(row)] * 2
    file.write_text(f"{row}\n{{}}")
    with pytest.raises(UserError, match="rows has no folder, seed: remove that line"):
        read_lines(file, RUN, "remove that line")
    for line in ("7", '{"fold', "", "null", '{"seed": 1}'):
        file.write_text(f"{row}\n{line}\n{row}\n")
        with pytest.raises(UserError, match=r"rows line 2.*[:;] remove"):
            read_lines(file, RUN, "remove that line")


def test_what_is_at_hand():
    assert parse("[1, 2]", "the header", array(integer()), "convert again") == [1, 2]
    with pytest.raises(UserError, match=r"^the header: 1='x': must be a whole number; convert"):
        parse('[1, "x"]', "the header", array(integer()), "convert again")
    with pytest.raises(UserError, match=r"^method has no seed$"):
        check({"folder": "x"}, "method", RUN)
    with pytest.raises(UserError, match=r"^the config has no seed$"):
        check({"folder": "x"}, "", RUN)


def test_a_message_is_one_line_whatever_a_name_holds():
    text = str(UserError("no file 'a\nb\x1b[31m\u202e': give another"))
    assert text == r"no file 'a\nb\x1b[31m\u202e': give another"
