"""A workdir of somebody else is data: none of its code runs, and what is wrong is one line.

Every mutation goes through all doors that read it: load, evaluate, predict and the doctor.
"""

import json
import os
import shutil
import sys
from contextlib import contextmanager
from functools import partial

import pytest

import flowad_jax
from flowad_jax import lookup, synthesis
from flowad_jax.data import sources
from flowad_jax.detector import workdir
from flowad_jax.doctor import workdir as doctor
from flowad_jax.errors import UserError
from flowad_jax.inference import job
from flowad_jax.sweep import runner
from flowad_jax.training import rescore
from tests.crafted_configs import KEYS, SHAPES
from tests.data.layouts import write_stc

MODULE = "somebody_elses"  # importing it, or calling a function of it, leaves a mark


@pytest.fixture(scope="module", name="run")
def _run(tiny_run, tmp_path_factory):
    """A copy of a finished run; every test leaves it as it was."""
    return shutil.copytree(tiny_run[0] / "run", tmp_path_factory.mktemp("hostile") / "run")


@pytest.fixture(name="mark")
def _mark(tmp_path, monkeypatch):
    """Appears if the module of somebody else is imported or used."""
    mark, folder = tmp_path / "mark", tmp_path / "path"
    folder.mkdir()
    lines = [
        "from pathlib import Path",
        f"def build(*args, **options): Path({str(mark)!r}).touch()",
        "build()",
    ]
    (folder / f"{MODULE}.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(folder)
    yield mark
    sys.modules.pop(MODULE, None)


@pytest.fixture(name="doors")
def _doors(run, tiny_run, tmp_path):
    """Functions that open the run; each raises what is refused."""

    def examine():
        section = doctor.examine(str(run))
        if section.problems:
            assert str(section).count("\n") == len(section.facts) + 2 * len(section.problems)
            raise UserError("; ".join(section.problems[0]))

    image = str(tiny_run[0] / "images" / "test" / "good" / "0.png")
    args = job.PredictArgs(str(run), [image], str(tmp_path / "found"))
    return {
        "load": lambda: flowad_jax.load(run),
        "evaluate": lambda: rescore.evaluate_workdir(run),
        "predict": lambda: job.run(args),
        "doctor": examine,
    }


def refusals(doors):
    """What each door says; nothing but a `UserError` may come out of it."""
    said = {}
    for name, enter in doors.items():
        try:
            enter()
        except UserError as error:
            said[name] = str(error)
            assert said[name].isprintable()
            assert len(said[name]) < 2000  # a list of all encoders
    return said


@contextmanager
def written(file, content):
    """While open, a file of the run holds something else."""
    before = file.read_bytes() if file.exists() else None
    file.write_bytes(content)
    try:
        yield
    finally:
        file.unlink()
        if before is not None:
            file.write_bytes(before)


# Which doors read a file; all of them the others.
READERS = {"metrics.jsonl": ("evaluate", "doctor"), "results.json": ("doctor",)}


@pytest.fixture(name="sound_config")
def _sound_config(monkeypatch):
    """Spares the doctor the parts of a config that is not what a test is about."""
    monkeypatch.setattr(doctor, "_usable", lambda *_: None)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["config.json", "sweep.json"])
def test_a_config_or_ledger_of_another_shape(run, doors, name, shape):
    with written(run / name, SHAPES[shape]):
        several = {"evaluate all": lambda: runner.evaluate(run)} if name == "sweep.json" else {}
        said = refusals(doors | several)
    assert said.keys() >= doors.keys()
    assert all(name in text for text in said.values())


@pytest.mark.usefixtures("sound_config")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "where"),
    [("metrics.jsonl", "metrics.jsonl line 1"), ("results.json", "flowad eval --workdir=")],
)
def test_rows_or_results_of_another_shape(run, doors, name, where, shape):
    rows = (run / name).read_bytes() if name == "metrics.jsonl" else b""
    with written(run / name, SHAPES[shape] + b"\n" * bool(rows) + rows):
        said = refusals({door: doors[door] for door in READERS[name]})
        assert (run / name).read_bytes().endswith(rows)
    assert said.keys() == set(READERS[name])
    assert all(name in text and where in text for text in said.values())


def test_results_and_metrics_are_not_needed_to_predict(run, doors):
    with written(run / "results.json", b"[]"), written(run / "metrics.jsonl", b"[]\n"):
        assert not refusals({name: doors[name] for name in ("load", "predict")})


def changed(run, key, value):
    """The bytes of the run's config with another value; a slash comes before a name with a dot."""
    config = json.loads((run / "config.json").read_text())
    *sections, name = key.split("/" if "/" in key else ".")
    section = config
    for word in sections:
        section = section[word]
    section[name] = value
    return json.dumps(config).encode()


@pytest.fixture(name="agreeing")
def _agreeing(monkeypatch):
    """Whoever forges a config forges the one in its checkpoint, too."""
    monkeypatch.setattr(workdir, "first_difference", lambda *_: None)


@pytest.mark.usefixtures("agreeing")
@pytest.mark.parametrize("key", dict(KEYS))
def test_a_value_of_the_config_that_cannot_be(run, doors, key):
    # A detector needs no data set: what would be wrong with it is nothing to `load` and predict.
    needed = {"doctor", "evaluate"} if key.startswith("data.") else set(doors)
    for value in (value for other, value in KEYS if other == key):
        with written(run / "config.json", changed(run, key, value)):
            said = refusals({name: doors[name] for name in needed})
        assert said.keys() == needed, value
        words = [*key.replace("/", ".").split("."), "config.json"]
        for name, text in said.items():
            assert any(word in text for word in words), (name, value, text)


NAMES = ("method.name", "data.name", "encoder.name", "synthesis.name", "train.schedule.name")


@pytest.mark.usefixtures("agreeing")
@pytest.mark.parametrize("key", [*NAMES, "encoder.padding", "data.norm", "eval.scoring"])
def test_names_of_the_config_import_nothing(run, doors, mark, key):
    tricks = [
        *(f"{MODULE}:build", f"tfds:{MODULE}:build", f"{MODULE}.sub:build", f"resnet.{MODULE}:x"),
        *(f":{MODULE}", f"{MODULE}:", f"..{MODULE}", MODULE, f"{MODULE}.build"),
        *("__main__", "__init__", "loop", "system.build", "_cells", "cflow.__class__", "../cflow"),
        *("", ".", "cflow.os", "sources", "load", "\u0131"),
    ]
    looked_up = {  # by what, where loading does not need it
        "data.name": sources.find,
        "synthesis.name": synthesis.make,
        "train.schedule.name": partial(lookup.find, "flowad_jax.training.schedules"),
    }
    for name in tricks:
        with written(run / "config.json", changed(run, key, name)):
            plain = name.removeprefix("tfds:") if key == "data.name" else name
            if ":" in plain:
                said = refusals({door: doors[door] for door in ("load", "doctor")})
                assert said.keys() == {"load", "doctor"}
                assert f"would import {plain.partition(':')[0]} and" in said["load"]
                assert "--allow_import=" in said["doctor"]
            elif key in looked_up:
                with pytest.raises(UserError, match=r"unknown|choices are|did you mean"):
                    looked_up[key](name)
            else:
                assert refusals({"load": doors["load"]}), name
    assert not mark.exists()
    assert MODULE not in sys.modules


@pytest.mark.usefixtures("agreeing")
def test_a_call_with_the_arguments_of_the_config_is_never_made(run, doors, tmp_path):
    target = tmp_path / "made"
    config = json.loads((run / "config.json").read_text())
    config["method"] = {"name": "os:mkdir", "path": str(target)}
    with written(run / "config.json", json.dumps(config).encode()):
        said = refusals(doors)
    assert said.keys() == doors.keys()
    assert not target.exists()


@pytest.mark.parametrize("name", ["stc", "stc.build"])
def test_a_stored_config_decodes_no_video(run, tmp_path, name):
    write_stc(tmp_path / "stc")
    target, path = tmp_path / "made", tmp_path / "theirs"
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"name": name, "root": str(tmp_path / "stc"), "category": "01"}
    config["data"]["options"] = {"frames": str(target), "decode": True}
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="lacks the frames of 2 videos"):
        rescore.evaluate_workdir(path)
    assert "lacks the frames of 2 videos" in str(doctor.examine(str(path)))
    assert not target.exists()
    assert [item.name for item in (tmp_path / "stc" / "shanghaitech" / "training").iterdir()] == [
        "videos"
    ]


@pytest.mark.usefixtures("agreeing")
def test_what_the_user_allows_is_imported(run, mark):
    with written(run / "config.json", changed(run, "method.name", f"{MODULE}:build")):
        for other in ((), ("somebody",), (f"{MODULE}.sub",), (f"{MODULE}_too",)):
            with pytest.raises(UserError, match="would import"):
                flowad_jax.load(run, allow_import=other)
        assert not mark.exists()
        config = workdir.load_config(run, (MODULE,))
        assert config.method.name == f"{MODULE}:build"
        with pytest.raises(UserError, match=r"method"):
            flowad_jax.load(run, allow_import=("other", MODULE))
        assert mark.exists()


@pytest.mark.usefixtures("sound_config")
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "results.json", "sweep.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_never_blocks(run, doors, name, kind):
    file, kept = run / name, run / "kept"
    if exists := file.exists():
        file.rename(kept)
    os.mkfifo(file) if kind == "pipe" else file.mkdir()
    try:
        said = refusals({door: doors[door] for door in READERS.get(name, doors)})
    finally:
        file.rmdir() if kind == "folder" else file.unlink()
        if exists:
            kept.rename(file)
    assert said
    assert all(name in text for text in said.values())


@pytest.mark.parametrize("folder", ["../elsewhere", "/elsewhere", "a/../../b", "..", "C:\\x", ""])
def test_runs_of_a_ledger_lie_below_it(tmp_path, folder):
    entry = {"folder": folder, "category": "", "encoder": "e", "seed": 0, "fault": ""}
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": [entry | {"status": "done"}]}))
    with pytest.raises(UserError, match=r"sweep\.json: runs\.0\.folder=.* below the workdir"):
        runner.evaluate(tmp_path)
