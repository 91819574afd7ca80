"""What may be wrong with a recipe is one line and exit code 1 or 2, never a traceback."""

import os
import sys

import pytest
from absl import flags

from flowad_jax.cli import recipes, scripts

IMPORT = "from flowad_jax.recipes.base import base\n"
GOOD = f"{IMPORT}def get_config(texture='wood'):\n    config = base()\n"
WHOLE = GOOD + "    config.data.category = texture\n    return config\n"


@pytest.fixture(name="ask")
def _ask(monkeypatch, capsys):
    """Runs a script that does nothing; returns its exit code and what it says."""

    def ask(*words):
        values = flags.FlagValues()
        monkeypatch.setattr(flags, "FLAGS", values)
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        holder = scripts.config_flags.DEFINE_config_file(
            "config", None, "", lock_config=True, flag_values=values
        )
        try:
            argv = scripts._parse(sys.argv)
            assert argv == ["train.py"]
            scripts.guard(lambda: print(holder.value.data.category))
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    return ask


@pytest.fixture(name="recipe")
def _recipe(tmp_path):
    return tmp_path / "recipe.py"


def test_a_recipe(ask, recipe):
    recipe.write_text(WHOLE)
    assert ask(f"--config={recipe}") == (0, "wood\n")
    assert ask("--config", str(recipe)) == (0, "wood\n")
    assert ask(f"--config={recipe}:grass") == (0, "grass\n")
    assert ask(f"--config={recipe}", "--config.data.category=sand") == (0, "sand\n")


@pytest.mark.parametrize("own", ["256", "(256, 640)"])
def test_a_size_is_one_number_or_two_whatever_the_recipe_has(ask, recipe, own):
    recipe.write_text(
        f"{GOOD}    config.data.image_size, config.data.category = {own}, texture\n"
        "    return config\n"
    )
    for given in ("256", "(256, 640)", "256,640", "[256, 640]"):
        assert ask(f"--config={recipe}", f"--config.data.image_size={given}") == (0, "wood\n")
    for given in ("(256,)", "(0, 640)", "wide", "(256, 640, 3)", "256x640", "2.5"):
        code, said = ask(f"--config={recipe}", f"--config.data.image_size={given}")
        assert code == 1
        assert "data.image_size" in said
        assert "pixels from 1 to 8192" in said


def test_a_name_brings_its_options(ask, recipe):
    recipe.write_text(
        "from flowad_jax.recipes.base import base\n"
        "def get_config():\n"
        "    config = base('ssnf', 'folder')\n"
        "    config.data.options.masks = 'none'\n"
        "    config.data.category = 'wood'\n"
        "    return config\n"
    )
    flags = (f"--config={recipe}", "--config.data.options.table=t.csv", "--config.data.name=csv")
    assert ask(*flags) == (0, "wood\n")
    assert ask(flags[0], "--config.data.name", "csv", flags[1]) == (0, "wood\n")
    assert ask(*flags, "--config.data.options.masks=auto", "--config.train.clip_norm=0")[0] == 0
    for name in ("synthesis.name=cutpaste", "train.schedule.name=schedules.constant"):
        assert ask(flags[0], f"--config.{name}")[0] == 0
    assert ask(flags[0], "--config.synthesis.name=")[0] == 0
    code, text = ask(*flags, "--config.data.options.normal=ok")
    assert code == 2
    assert "unknown key --config.data.options.normal" in text
    code, text = ask(flags[0], "--config.synthesis.name=mixture", "--config.synthesis.draws=3")
    assert code == 2
    assert "unknown key --config.synthesis.draws" in text


FAULTS = {
    "nothing": ("", "it is no recipe, as it defines no get_config()"),
    "a syntax error": ("\ndef get_config(:\n", "(line 2): SyntaxError: invalid syntax"),
    "no UTF-8": (b"\xff\xfe\n", "cannot be loaded"),
    "a null byte": (b"x = '\0'\n", "cannot be loaded"),
    "an unknown module": (
        "\n\nimport nowhere_at_all\n",
        "(line 3): ModuleNotFoundError: No",
    ),
    "an unknown name": ("x = 1\ny = z\n", "(line 2): NameError: name 'z' is not defined"),
    "a fault in get_config": (GOOD + "    return 1 / 0\n", "(line 4): ZeroDivisionError: division"),
    "a value of another type": (GOOD + "    config.seed = 'a\\nb'\n", "(line 4): TypeError: "),
    "an unknown key": (GOOD + "    config.data.sed = 1\n", "(line 4): AttributeError: "),
    "a missing file": ("open('/nowhere/at/all')\n", "(line 1): FileNotFoundError: No such file"),
    "an endless recursion": ("def get_config():\n    return get_config()\n", "RecursionError: max"),
    "an exception of its own": ("class E(Exception): pass\nraise E\n", "(line 2): E\n"),
    "nothing returned": (GOOD, "its get_config() returns NoneType instead of a ConfigDict"),
    "a dict returned": ("def get_config(): return {'data': 1}\n", "returns dict instead of"),
    "no callable": ("get_config = 3\n", "'int' object is not callable"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_recipe_with_a_fault(ask, recipe, case):
    content, message = FAULTS[case]
    recipe.write_bytes(content if isinstance(content, bytes) else content.encode())
    for words in ([], ["--config.data.category=sand"]):
        code, text = ask(f"--config={recipe}", *words)
        assert code == 2
        assert text.startswith(f"error: --config: {recipe} cannot be loaded")
        assert message in text
        assert text.count("\n") == 1


def test_a_recipe_that_is_no_file(ask, tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "recipe.py").write_text(WHOLE)
    for name, message in (
        ("pipe.py", "a named pipe, not a file"),
        ("folder.py", "Is a directory"),
        ("recip.py", "did you mean"),
        ("recipe.py/x", "Not a directory"),
    ):
        code, text = ask(f"--config={tmp_path / name}")
        assert code == 2
        assert message in text
        assert text.startswith("error: --config: ")
        assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "--config is empty: name a recipe; `flowad recipes` lists them"),
        ("quickstrat", "there is no recipe quickstrat: did you mean 'quickstart'?"),
        ("zzz", "there is no recipe zzz: `flowad recipes` lists them"),
        (
            "configs/ssnf_csv.py",
            "no file configs/ssnf_csv.py: the recipe of the package is --config=ssnf_csv",
        ),
        ("zzz/ssnf.py", "there is no file zzz/ssnf.py\n"),
    ],
)
def test_a_name_that_is_no_recipe(ask, name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in ([f"--config={name}"], ["--config", name]):
        code, text = ask(*words)
        assert (code, text.count("\n")) == (2, 1)
        assert message in text


def test_recipes_of_the_package(ask):
    assert ask("--config=quickstart") == (0, "brick\n")
    assert ask("--config", "cflow_mvtec:screw", "--config.data.name=csv") == (0, "screw\n")


@pytest.mark.parametrize("name", recipes.packaged())
def test_every_recipe_takes_a_table(ask, name):
    flags = ("--config.data.name=csv", "--config.data.options.table=t.csv")
    assert ask(f"--config={name}", *flags, "--config.data.category=mine") == (0, "mine\n")


def test_a_recipe_of_version_0_1_is_told_what_to_import(ask, recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "configs", None)
    recipe.write_text(WHOLE.replace("flowad_jax.recipes", "configs"))
    code, text = ask(f"--config={recipe}")
    assert code == 2
    assert "(line 1): " in text
    assert "recipes are imported from flowad_jax.recipes, no longer from configs" in text


def test_the_defaults_are_no_recipe(ask):
    code, text = ask("--config=configs/base.py")
    assert (code, text.count("\n")) == (2, 1)
    assert "configs/base.py cannot be loaded: it is no recipe" in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("del config.data", "the config has no data"),
        ("del config.eval.scoring", "the config has no eval.scoring"),
        ("config.data.sed = 1", "unknown key data.sed"),
        ("config.data.image_size = 10**9", "data.image_size=1000000000: must be"),
        ("config.train.epochs = -1", "train.epochs=-1: must be 1 or more"),
        ("config.train.learning_rate = float('nan')", "train.learning_rate=nan: must be"),
        ("config.train.stack = (object(),)", "what JSON does not know"),
    ],
)
def test_a_config_that_is_incomplete_or_out_of_range(ask, recipe, line, message):
    recipe.write_text(f"{GOOD}    config.unlock()\n    {line}\n    return config\n")
    code, text = ask(f"--config={recipe}")
    assert code == 1, text
    assert message in text
    assert text.count("\n") == 1


def test_misspelt_keys(ask, recipe):
    recipe.write_text(WHOLE)
    code, text = ask(f"--config={recipe}", "--config.train.epohcs=3")
    assert code == 2
    assert "unknown key --config.train.epohcs: did you mean 'train.epochs'?" in text
