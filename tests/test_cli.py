"""What may be wrong with a recipe is one line and exit code 1 or 2, never a traceback."""

import os
import sys

import pytest
from absl import flags

from flowad_jax import cli

# ml_collections loads a recipe by it.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

GOOD = "from configs.base import base\ndef get_config(texture='wood'):\n    config = base()\n"
WHOLE = GOOD + "    config.data.category = texture\n    return config\n"


@pytest.fixture(name="ask")
def _ask(monkeypatch, capsys):
    """Runs a script that does nothing; returns its exit code and what it says."""

    def ask(*words):
        values = flags.FlagValues()
        monkeypatch.setattr(flags, "FLAGS", values)
        sys.modules.pop("config_config", None)  # a recipe is loaded into what an earlier one left
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        holder = cli.config_flags.DEFINE_config_file(
            "config", None, "", lock_config=True, flag_values=values
        )
        try:
            argv = cli._parse(sys.argv)
            assert argv == ["train.py"]
            cli._guard(lambda: print(holder.value.data.category))
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
    "an exception of its own": ("class E(Exception): pass\nraise E\n", "(line 2): E: "),
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


def test_the_defaults_are_no_recipe(ask):
    code, text = ask("--config=configs/base.py")
    assert (code, text.count("\n")) == (2, 1)
    assert "configs/base.py cannot be loaded: it is no recipe" in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("del config.data", "the config has no data"),
        ("del config.eval.top", "the config has no eval.top"),
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
