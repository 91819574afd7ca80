"""Nothing out of a stranger's file reaches a terminal or a log but as text on one line."""

import logging
import pickle

import pytest

from flowad_jax import arguments, errors
from flowad_jax.cli import scripts
from flowad_jax.weights import layout

HOSTILE = {
    "escape sequence": "a\x1b[2J\x1b]0;owned\x07b",
    "8-bit escape": "a\x9b2Jb",
    "line break": "a\nerror: all is well\r\n",
    "line separator": "a\u2028b\u2029c\x0b\x0c\x85",
    "changed direction": "a\u202etxt.exe\u2066b\u200f",
    "hidden": "a\u200b\u200d\ufeffb",
    "not UTF-8": "a\udcff\udc80b",
    "null": "a\0b\x7f",
    "backspace": "good\b\b\b\bevil",
    "tag": "a\U000e0041\U000e0042b",
    "long": "a" * 20_000,
    "long and hidden": "\x1b" * 5_000,
}


def shows(text):
    assert text.isprintable()
    assert len(text) <= errors.MAX_LINE + 20
    text.encode("utf-8")


@pytest.mark.parametrize("name", HOSTILE)
def test_messages_are_safe_to_show(name, capsys):
    error = errors.UserError(f"{HOSTILE[name]}: mend it")
    shows(str(error))
    assert str(error).endswith(": mend it")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    shows(str(layout.ConversionError(HOSTILE[name], [HOSTILE[name]] * 5, [], [])))
    for fail in (arguments.Parser("x", None).error, arguments.Parser("x", None).fail):
        with pytest.raises(SystemExit):
            fail(HOSTILE[name])
        line = capsys.readouterr().err
        assert line.startswith("error: ")
        assert line.endswith("\n")
        shows(line[:-1].removeprefix("error: "))


@pytest.mark.parametrize("name", HOSTILE)
def test_log_lines_are_safe_to_show(name):
    record = logging.LogRecord("flowad_jax", logging.INFO, "", 0, "see %s", (HOSTILE[name],), None)
    shows(scripts.OneLineFormatter("%(message)s").format(record))


@pytest.mark.parametrize("name", HOSTILE)
def test_lists_of_tensors_have_a_line_each(name):
    text = layout.ConversionError("a.pth", [HOSTILE[name]] * 2, [], [HOSTILE[name]]).lists()
    lines = text.splitlines()
    assert len(lines) == 5
    for line in lines:
        shows(line)


def test_text_in_any_language_stays_as_it_is():
    text = "Größe 大小 размер حجم: café.png"
    assert str(errors.UserError(text)) == text
