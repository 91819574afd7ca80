"""The programs behind the README's table of encoders: what is measured, kept and shown."""

import json
import sys
from importlib.util import find_spec

import pytest

from benchmarks import encoder_parity, encoder_table
from flowad_jax.encoders import architecture
from flowad_jax.errors import UserError
from peers import verification

RESNET, TINY = "resnet.resnet18", "resnet.resnet_tiny"


def row(name, worst=1e-6, **more):
    peer = architecture.find(name).spec.peer
    measured = {"worst": worst, "layers": 3, "layer": "a", "image": [9, 9], "weights": "random"}
    return {"encoder": name, "peer": peer, **measured, "seconds": 1, "versions": {}, **more}


@pytest.fixture
def measured(monkeypatch):
    """Names in the order in which they are measured, without PyTorch."""
    names = []

    def measure(name):
        names.append(name)
        return row(name)

    monkeypatch.setattr(encoder_parity, "measured_apart", measure)
    monkeypatch.setattr(encoder_parity, "versions", lambda peer: {})
    monkeypatch.setattr(verification, "require", lambda peer: None)
    monkeypatch.setattr(encoder_parity.lookup, "choices", lambda package: [RESNET, TINY])
    return names


def test_what_is_there_is_kept_unless_it_is_named_or_of_other_versions(tmp_path, measured):
    path = tmp_path / "parity.json"
    assert encoder_parity.run(path, "") == []
    assert measured == [RESNET]
    first = encoder_parity.read(path)
    assert first == {RESNET: row(RESNET), TINY: {"encoder": TINY, "peer": None}}
    for only, count in (("", 1), (TINY, 1), (RESNET, 2)):
        encoder_parity.run(path, only)
        assert (measured, encoder_parity.read(path)) == ([RESNET] * count, first)
    encoder_parity.write(path, first | {RESNET: row(RESNET, versions={"jax": "0.1"})})
    encoder_parity.run(path, "")
    assert (measured, encoder_parity.read(path)) == ([RESNET] * 3, first)


def test_a_row_outlasts_the_failure_of_another(tmp_path, measured, monkeypatch):
    other = "resnet.resnet34"

    def measure(name):
        if name == other:
            raise UserError("broke")
        return row(name, 2e-4)

    monkeypatch.setattr(encoder_parity, "measured_apart", measure)
    monkeypatch.setattr(encoder_parity.lookup, "choices", lambda package: [RESNET, other])
    path = tmp_path / "parity.json"
    wrong = encoder_parity.run(path, "")
    assert wrong == [f"{RESNET}: differs by more than 0.0001", f"{other}: broke"]
    assert list(encoder_parity.read(path)) == [RESNET]


@pytest.mark.parametrize("text", ["no json", "[]", '{"encoders": [{}]}'])
def test_a_foreign_file_is_named(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a\.json: is not a file of this program"):
        encoder_parity.read(path)


def test_a_misspelt_encoder_is_answered_in_one_line(monkeypatch, capsys):
    words = ["", "--output=never.json", "--only=resnet.resnet19"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        encoder_parity.main()
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("error: --only='resnet.resnet19': did you mean")


def test_runs_of_equal_numbers_are_counted():
    assert encoder_table.runs((2, 4, 4, 8, 2)) == "2, 4 x 2, 8, 2"
    assert encoder_table.runs((768,) * 12) == "768 x 12"


def test_only_what_lies_between_the_comments_is_replaced():
    old = f"a\n{encoder_table.BEGIN}\nold\n{encoder_table.END}\nb\n"
    assert encoder_table.filled(old, "| new |") == old.replace("old", "| new |")
    with pytest.raises(UserError, match="needs the lines"):
        encoder_table.filled(old.replace(encoder_table.END, ""), "| new |")


def test_an_encoder_without_a_figure_says_so(monkeypatch):
    monkeypatch.setattr(encoder_table, "published", lambda: [RESNET])
    last = encoder_table.table({}).splitlines()[-1]
    assert last.startswith(f"| `{RESNET}` | 0 to 3 | 64, 128, 256, 512 | 4, 8, 16, 32 | 11.2 M |")
    assert last.endswith(" | BSD-3-Clause | not measured |")
    shown = encoder_table.table({RESNET: row(RESNET, 1.26e-6, parameters=12_340_000)})
    assert "| 12.3 M |" in shown
    assert shown.endswith("| 1.3e-6, 3 layers |")


@pytest.mark.live
@pytest.mark.skipif(
    not (find_spec("torch") and find_spec("torchvision")), reason="torchvision is not installed"
)
def test_an_encoder_is_measured_in_a_process_of_its_own():
    found = encoder_parity.measured_apart("mobilenet_v3.mobilenet_v3_small")
    assert found["worst"] < 1e-5
    assert (found["layers"], found["weights"], found["not_compared"]) == (104, "random", 0)
    assert found["parameters"] == 870_560
    json.dumps(found)
