"""A workdir of somebody else is data: none of its code runs, and what is wrong is one line.

Every mutation goes through all doors that read it: load, evaluate, predict and the doctor.
"""

import json
import os
import sys
from functools import partial

import pytest

import flowad_jax
from configs.base import base
from flowad_jax import lookup, synthesis
from flowad_jax.data import sources
from flowad_jax.doctor import workdir as doctor
from flowad_jax.errors import UserError
from flowad_jax.serving import command
from flowad_jax.training import summary, sweep, workdir
from flowad_jax.training.loop import train
from tests.conftest import write_image

MODULE = "somebody_elses"  # importing it, or calling a function of it, leaves a mark


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory):
    """The folder of a finished run; every test leaves it as it was."""
    root = tmp_path_factory.mktemp("hostile")
    for index in range(6):
        write_image(root / "images" / "train" / "good" / f"{index}.png", index)
    for kind in ("good", "spot"):
        write_image(root / "images" / "test" / kind / "0.png", 9, defect=kind == "spot")
    config = base("cflow", "folder")
    config.data.root, config.data.image_size = str(root / "images"), 32
    config.data.holdout, config.data.workers = 0.4, 0
    config.encoder.name = "efficientnet_lite.efficientnet_lite_tiny"
    config.encoder.weights, config.encoder.strides = "random", (4, 8)
    config.method.blocks, config.method.condition, config.method.fibre_size = 1, 4, 16
    config.train.epochs, config.train.batch_size, config.eval.batch_size = 1, 4, 4
    config.train.plan_memory = False
    config.eval.pictures_per_kind, config.eval.report_images = 0, 0
    train(config, root / "run")
    return root / "run"


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
def _doors(run, tmp_path):
    """Functions that open the run; each raises what is refused."""

    def examine():
        section = doctor.examine(str(run))
        if section.problems:
            assert str(section).count("\n") == len(section.facts) + 2 * len(section.problems)
            raise UserError("; ".join(section.problems[0]))

    image = str(run.parent / "images" / "test" / "good" / "0.png")
    job = command.Job(str(run), [image], str(tmp_path / "found"))
    return {
        "load": lambda: flowad_jax.load(run),
        "evaluate": lambda: summary.evaluate_workdir(run),
        "predict": lambda: command.run(job),
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


class written:
    """While open, a file of the run holds something else."""

    def __init__(self, file, content):
        self._file, self._content = file, content

    def __enter__(self):
        self._before = self._file.read_bytes() if self._file.exists() else None
        self._file.write_bytes(self._content)

    def __exit__(self, *_):
        self._file.unlink()
        if self._before is not None:
            self._file.write_bytes(self._before)


SHAPES = {
    "nothing": b"",
    "half": b'{"seed": 0, "data": {"na',
    "no UTF-8": b'{"seed": "\xff\xfe"}',
    "null": b"null",
    "truth": b"true",
    "number": b"7",
    "text": b'"os:system"',
    "list": b"[]",
    "rows": b"[1, [2], null]",
    "table": b"{}",
    "other table": b'{"runs": {"columns": []}, "columns": {"last": 3}, "kind": "eval"}',
    "deep lists": b"[" * 50_000 + b"]" * 50_000,
    "deep tables": b'{"data": ' * 5_000 + b"1" + b"}" * 5_000,
    "NaN": b'{"seed": NaN, "step": Infinity, "columns": {"last": {"image_auroc": NaN}}}',
    "huge": b'{"seed": 1' + b"0" * 6000 + b"}",
    "twice": b'{"seed": 1, "seed": 2}',
    "control": b'{"seed": "\\u0000\\u001b[31m\\n"}',
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_config_of_another_shape(run, doors, shape):
    with written(run / "config.json", SHAPES[shape]):
        said = refusals(doors)
    assert said.keys() == doors.keys()
    assert all("config.json" in text for text in said.values())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_ledger_of_another_shape(run, doors, shape):
    with written(run / "sweep.json", SHAPES[shape]):
        said = refusals(doors | {"evaluate all": lambda: sweep.evaluate(run)})
    assert said.keys() >= doors.keys()
    assert all("sweep.json" in text for text in said.values())


@pytest.fixture(name="sound_config")
def _sound_config(monkeypatch):
    """Spares the doctor the parts of a config that is not what a test is about."""
    monkeypatch.setattr(doctor, "_usable", lambda *_: None)


@pytest.mark.usefixtures("sound_config")
@pytest.mark.parametrize("shape", SHAPES)
def test_metrics_of_another_shape(run, doors, shape):
    rows = (run / "metrics.jsonl").read_bytes()
    with written(run / "metrics.jsonl", SHAPES[shape] + b"\n" + rows):
        said = refusals({name: doors[name] for name in ("evaluate", "doctor")})
        assert (run / "metrics.jsonl").read_bytes().endswith(rows)
    assert said.keys() == {"evaluate", "doctor"}
    assert all("metrics.jsonl line 1" in text for text in said.values())


@pytest.mark.usefixtures("sound_config")
@pytest.mark.parametrize("shape", SHAPES)
def test_results_of_another_shape(run, doors, shape):
    with written(run / "results.json", SHAPES[shape]):
        said = refusals({"doctor": doors["doctor"]})
    assert "results.json" in said["doctor"]
    assert "eval.py --workdir=" in said["doctor"]


def test_results_and_metrics_are_not_needed_to_predict(run, doors):
    with written(run / "results.json", b"[]"), written(run / "metrics.jsonl", b"[]\n"):
        assert not refusals({name: doors[name] for name in ("load", "predict")})


SECTIONS = ("seed", "data", "synthesis", "encoder", "method", "train", "cache", "eval", "sweep")
VALUES = {
    "data.image_size": (10**9, 0, -32, 32.0, "32", None, True, [32]),
    "data.category_sizes": ({"part": 0}, {"a.b": 32}, {"": 10**9}, {"x": "y"}),
    "data.category": (None, 7, ["part"], "a\nb", "x\0", "../../..", "\ud800"),
    "data.root": (None, 7, "a\0b", "/dev/zero", "\ud800/x"),
    "data.norm": (None, "\x1b[2J", {"mean": 0}),
    "data.filter": (0, "none"),
    "data.holdout": ("all", None, [0.1], 1e300),
    "data.options": ({"masks": 7}, {"white": []}, {"unknown": 1}, {"__class__": 1}, {"lock": 1}),
    "data.options.normal": (["good"], None, 3),
    "encoder.strides": (None, [], ["4"], [[4]], {"a": 1}, 4, [10**9]),
    "encoder.taps": ("1", [1.5], [-1], [10**9], [[1]]),
    "encoder.weights": (None, 3, ["random"], "a\0b", "/dev/zero", ".", "\udcff"),
    "encoder.padding": (3, "mirror", ["zeros"]),
    "encoder.unknown": (1,),
    "encoder.lock": (1,),
    "encoder.layer_norm": (1, "yes"),
    "method.blocks": (10**9, -1, "8", None, [1], 1.5, {"a": 1}),
    "method.condition": (10**9, -4, "4", 6),
    "method.fibre_size": (10**12, 0, "x"),
    "method.clamp": ("x", None, [1.0], 1e300),
    "method.unknown": (1,),
    "method.items": (1,),
    "method/a.b": (1,),
    "train.epochs": (10**12, 0, -1, "1", None),
    "train.batch_size": (0, -4, 10**9, "4"),
    "train.learning_rate": (0, -1.0, "x", None),
    "train.unknown": (1,),
    "eval.batch_size": (0, -1, 10**9, 1.5, None),
    "eval.false_alarm_rate": (0, 2, "x", None),
    "eval.top": (-1, 2, "x"),
    "eval.image_score": ("mean", None, 3),
    "eval.scoring": ("paper", None),
    "precision": ("float8", None, 7),
    "seed": (-1, 2**63, 1.5, "0", None, True),
}
KEYS = [(key, value) for key, values in VALUES.items() for value in values] + [
    (section, value)
    for section in (*SECTIONS, "data.options", "train.schedule", "data.category_sizes")
    for value in (None, [], "text", {"name": None})
]


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
    monkeypatch.setattr(workdir, "_of_state", lambda path: None)


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
        "train.schedule.name": partial(lookup.find, "flowad_jax.training"),
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
                with pytest.raises(UserError, match="unknown"):
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
        used = {"metrics.jsonl": ("evaluate", "doctor"), "results.json": ("doctor",)}
        said = refusals({door: doors[door] for door in used.get(name, doors)})
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
        sweep.evaluate(tmp_path)
