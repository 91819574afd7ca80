"""The command `flowad export`: its flags, its exit codes, and what it prints."""

import subprocess
import sys

import pytest

from flowad_jax.bundle import card, export, place, runtime, validate
from flowad_jax.cli import export as command
from flowad_jax.errors import UserError


def flowad(*words):
    words = [sys.executable, "-m", "flowad_jax", "export", *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "missing --workdir, --output"),
        (["--workdir=a"], "missing --output"),
        (["--validate=a", "--output=b"], "--validate and --output do not go together"),
        (["--workdir=a", "--output=b", "--batch=2"], "--batch=2"),
        (["--workdir=a", "--output=b", "--opset=11"], "--opset=11"),
    ],
)
def test_wrong_usage_is_one_line(words, message):
    done = flowad(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_bundle_is_checked_in_another_process(exported, tmp_path):
    done = flowad(f"--validate={exported.place}")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [*runtime.installed()]
    done = flowad(f"--validate={tmp_path}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is not an exported detector: it has no detector.json" in done.stderr


class Flags(dict):
    __getattr__ = dict.__getitem__


@pytest.fixture(name="given")
def _given(monkeypatch):
    """Calls the command with these values of flags."""

    def given(**values):
        unset = dict.fromkeys(("validate", "workdir", "output", "false_alarm_rate", "threshold"))
        chosen = Flags(
            unset
            | {"allow_import": [], "batch": "dynamic", "opset": 18, "dtype": "float32"}
            | values
        )
        monkeypatch.setattr(command.flags, "FLAGS", chosen)
        command.job()

    return given


def test_flags_become_arguments(given, exported, monkeypatch, capsys):
    seen = []

    def exports(*args):
        seen.append(args)
        return exported

    monkeypatch.setattr(export, "export", exports)
    given(
        workdir="run",
        output="a.flowad",
        batch="1",
        opset=19,
        threshold=2.0,
        allow_import=["b"],
        dtype="float16",
    )
    options = card.GraphOptions("float16", opset=19, dynamic=False)
    assert seen == [("run", "a.flowad", options, None, 2.0, ["b"])]
    assert capsys.readouterr().out == export.shown(exported) + "\n"


def test_ctrl_c_leaves_nothing(given, run, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runtime, "copy", interrupted)
    monkeypatch.setattr(export, "_write_graphs", lambda *_: None)
    with pytest.raises(SystemExit) as stop:
        given(workdir=str(run), output=str(tmp_path / "a.flowad"))
    assert stop.value.code == 130
    assert capsys.readouterr().err.endswith("interrupted; nothing was written\n")
    assert list(tmp_path.iterdir()) == []


def test_without_a_backend_there_is_a_line(exported, monkeypatch):
    monkeypatch.setattr(runtime, "BACKENDS", ())
    with pytest.raises(UserError, match=r"neither onnxruntime nor openvino is installed: pip"):
        validate.validate(exported.place)
    assert place.check(str(exported.place)) == exported.place
