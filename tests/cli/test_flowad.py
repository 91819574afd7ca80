"""The command flowad finds its commands, and the recipes of the package."""

import os
import subprocess
import sys

import pytest

from flowad_jax.cli import main, recipe, recipes
from flowad_jax.version import __version__


@pytest.fixture(name="flowad")
def _flowad(monkeypatch, capsys):
    """Runs flowad in this process; returns its exit code and what it says."""

    def flowad(*words):
        monkeypatch.setattr(sys, "argv", ["flowad", *map(str, words)])
        try:
            main.main()
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    return flowad


def test_help_fits_a_screen(flowad):
    code, text = flowad("--help")
    assert (code, text) == flowad() == flowad("help") == (0, main.HELP)
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for command in main.COMMANDS:
        assert f"\n  {command} " in text
    for line in lines:  # what it tells to type exists
        if "--config=" in line:
            assert line.split("--config=")[1].split()[0] in recipes.packaged()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian': did you mean 'train'?"),
        (["zzz"], "unknown command 'zzz': choices are compare, completion"),
        (["--workdir=a"], "name a command before --workdir=a, such as 'flowad train --workdir=a'"),
        (["recipes", "--copy", "cflow_foldr", "."], "did you mean 'cflow_folder'?"),
        (["recipes", "--copy", "cflow_folder"], "expected 2 arguments"),
        (["completion", "tcsh"], "invalid choice: 'tcsh'"),
        (["recipes", "--copy", "zzz", "."], "there is no recipe zzz"),
    ],
)
def test_wrong_usage_is_one_line(flowad, words, message):
    code, text = flowad(*words)
    assert code == 2
    assert text.startswith("error: ")
    assert message in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_whoever_reads_may_stop(unbuffered):
    """As `flowad recipes | head -1` does."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "flowad_jax", "recipes"]
    own = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True, env=own)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


def test_version(flowad):
    assert flowad("--version") == (0, f"flowad {__version__}\n")


def test_help_does_not_wait_for_jax():
    code = (
        "import sys\n"
        "from flowad_jax.cli import main\n"
        "for words in (['--help'], ['train', '--help'], ['recipes']):\n"
        "    sys.argv = ['flowad', *words]\n"
        "    main.main()\n"
        "print('jax' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    assert "flowad train --config=quickstart" in done.stdout


def test_recipes_are_listed_with_a_line_each(flowad):
    code, text = flowad("recipes")
    assert code == 0
    known = recipes.packaged()
    assert [line.split()[0] for line in text.splitlines()] == list(known)
    assert all(len(line.split()) > 3 for line in text.splitlines())
    assert {"quickstart", "cflow_folder", "ssnf_csv", "papers/cflow_mvtec_resnet18"} <= {*known}
    assert not {"base", "mended", "papers/_common"} & {*known}


@pytest.mark.parametrize("name", ["cflow_folder", "papers/cflow_mvtec_resnet18"])
def test_a_recipe_that_was_copied_out_works_alone(flowad, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    code, text = flowad("recipes", "--copy", name, ".")
    file = f"{name.split('/')[-1]}.py"
    assert code == 0
    assert f"flowad train --config={file} " in text
    assert recipe.load(file).to_dict() == recipe.load(name).to_dict()
    (tmp_path / file).write_text("mine")
    code, text = flowad("recipes", "--copy", name, ".")
    assert (code, text) == (1, f"error: {file} exists: remove it, or name another file\n")
    assert (tmp_path / file).read_text() == "mine"
    assert flowad("recipes", "--copy", name, "other.py")[0] == 0
    code, text = flowad("recipes", "--copy", name, "nowhere/")
    assert (code, text.count("\n")) == (1, 1)
    assert "nowhere is no folder: make it first" in text


def test_what_lies_around_does_not_shadow_the_recipes(tmp_path, monkeypatch):
    expected = recipe.load("cflow_folder").to_dict()
    for name in ("configs", "recipes", "cflow_folder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "quickstart.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "base.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert recipe.load("cflow_folder").to_dict() == expected
