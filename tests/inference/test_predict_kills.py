"""SIGKILL at every write, and a line cut off at any byte: earlier results stay, and it goes on."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowad_jax.errors import UserError
from flowad_jax.inference import job, watch
from tests.inference.stub import Bright, lines, picture, summary, use

ROOT = Path(__file__).parents[2]
NORMAL, ANOMALOUS = 40 / 255, 250 / 255  # scores of the stub
OLD = {"in/a.png": NORMAL, "in/b.png": NORMAL}


@pytest.fixture(scope="module", name="killed")
def _killed(tmp_path_factory):
    """A folder for every scene of `killed_predict`, with one for every write in it."""
    root = tmp_path_factory.mktemp("killed")
    words = [sys.executable, "-m", "tests.inference.killed_predict", str(root)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return root


def places(killed, scene):
    """The folders of a scene, by the number of writes before the kill."""
    found = sorted((killed / scene).iterdir(), key=lambda place: int(place.name))
    assert len(found) > 15, "so many writes there are"
    return found


def scores(place):
    """Scores by path, of an output that is whole: its pictures, its table and its summary too."""
    found = lines(place)
    for line in found:
        with Image.open(place / "out" / line["map"]) as stored:
            assert np.asarray(stored).max() == pytest.approx(line["score"]), line
    with (place / "out" / "predictions.csv").open(newline="") as file:
        assert all(float(row["score"]) for row in csv.DictReader(file))
    assert summary(place)["written_by"] == "predict.py"
    assert len({line["path"] for line in found}) == len(found)
    return {line["path"]: pytest.approx(line["score"]) for line in found}


def go_on(monkeypatch, place, **settings):
    """Calls predict.py once more."""
    monkeypatch.chdir(place)
    use(monkeypatch, Bright())
    looks = iter(range(3))
    monkeypatch.setattr(
        watch, "wait", lambda *_: next(looks, None) is None and signal.raise_signal(signal.SIGTERM)
    )
    assert job.run(job.PredictArgs("run", ["in"], "out", save=("map",), **settings)) == 0


@pytest.fixture(name="started")
def _started(tmp_path, monkeypatch):
    """A watch that has judged two images; returns its lines' file and their bytes."""
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.png")
    go_on(monkeypatch, tmp_path, watch=True)
    file = tmp_path / "out" / "predictions.jsonl"
    return file, file.read_bytes()


@pytest.mark.whole
def test_killed_in_a_new_folder(killed, monkeypatch):
    for place in places(killed, "fresh"):
        go_on(monkeypatch, place)
        assert scores(place) == OLD, place
        assert summary(place)["normal"] == 2


@pytest.mark.whole
def test_killed_while_an_output_is_replaced(killed, monkeypatch):
    new = {f"in/{name}.png": ANOMALOUS for name in "abc"}
    seen = []
    for place in places(killed, "rerun"):
        found = scores(place)
        assert found in (OLD, new), place
        assert summary(place)["finished"]
        seen.append(found == new)
        go_on(monkeypatch, place)
        assert scores(place) == new, place
        about = summary(place)
        assert (about["images"], about["anomalous"], about["finished"]) == (3, 3, True)
        assert not (place / "out" / ".replacement").exists()
        left = {path.name for path in (place / "out" / "maps").glob("[!.]*")}
        named = {Path(line["map"]).name for line in lines(place)}
        assert len(left - named) <= Bright.batch_size, "of the batch that had no lines yet"
    assert seen == sorted(seen)
    assert len(set(seen)) == 2


@pytest.mark.whole
def test_killed_while_a_watch_goes_on(killed, monkeypatch):
    wanted = {**OLD, "in/c.png": ANOMALOUS, "in/d.png": NORMAL}
    for place in places(killed, "watched"):
        file = place / "out" / "predictions.jsonl"
        before = file.read_text().splitlines()[:2]
        assert [json.loads(line)["path"] for line in before] == ["in/a.png", "in/b.png"], place
        go_on(monkeypatch, place, watch=True)
        assert file.read_text().splitlines()[:2] == before
        assert scores(place) == wanted, place
        about = summary(place)
        assert (about["images"], about["normal"], about["anomalous"]) == (4, 3, 1)
        with (place / "out" / "predictions.csv").open(newline="") as table:
            assert {row["path"] for row in csv.DictReader(table)} == set(wanted)


def test_a_line_that_was_cut_off_is_judged_again(tmp_path, monkeypatch, started):
    file, whole = started
    first = whole.index(b"\n") + 1
    for end in [*range(first, len(whole), 59), len(whole) - 1]:
        file.write_bytes(whole[:end])
        go_on(monkeypatch, tmp_path, watch=True)
        assert file.read_bytes()[:first] == whole[:first]
        assert scores(tmp_path) == OLD
        assert summary(tmp_path)["images"] == 2


def test_a_damaged_line_costs_no_other(tmp_path, monkeypatch, started):
    file, whole = started
    odd = b'not json\n[1]\n{"path": 3}\n{"path": "x", "regions": 7, "anomalous": [1]}\n\xff\n'
    content = odd + b"[" * 100_000 + b"\n" + whole
    file.write_bytes(content)
    go_on(monkeypatch, tmp_path, watch=True)
    assert file.read_bytes() == content, "nothing is judged again, nothing is lost"
    about = summary(tmp_path)
    assert (about["images"], about["normal"], about["undecided"]) == (3, 2, 1)


@pytest.mark.parametrize(
    "text",
    ["[]", "null", "{", '{"written_by": 3}', '{"written_by": "x"}', "\\x00" * 9, "[" * 99_999],
    ids=range(7),
)
def test_a_foreign_summary_changes_nothing(tmp_path, monkeypatch, started, text):
    file, whole = started
    (tmp_path / "out" / "summary.json").write_text(text)
    for settings in ({}, {"watch": True}):
        with pytest.raises(UserError, match=r"summary\.json"):
            go_on(monkeypatch, tmp_path, **settings)
        assert file.read_bytes() == whole
