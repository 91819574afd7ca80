"""The recipe that ``--config`` names: finds and loads it, and says in one line what is wrong."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_dict

from flowad_jax import files
from flowad_jax.cli import recipes
from flowad_jax.detector.config_schema import flatten
from flowad_jax.errors import UserError
from flowad_jax.lookup import nearest
from flowad_jax.settings import sections

_OVERRIDE = re.compile(r"--(?:no)?config\.([\w.]+)")


class Loaded(flags.ArgumentParser[config_dict.ConfigDict]):
    """Hands a recipe that is loaded already to the flag that names it."""

    def __init__(self, config: config_dict.ConfigDict) -> None:
        """Keeps the recipe."""
        self._config = config

    def parse(self, argument: str) -> config_dict.ConfigDict:
        """See `absl.flags.ArgumentParser`."""
        return self._config.lock()


def value_of(flag: str, words: Sequence[str]) -> str | None:
    """Returns the value of a flag among the words of a command line, None if it is not there."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            return value if equals else following
    return None


def load(recipe: str) -> config_dict.ConfigDict:
    """Calls ``get_config`` of a recipe ``NAME`` or ``NAME:ARGUMENT``, with that argument.

    Args:
      recipe: NAME is that of a recipe of the package, such as ``cflow_folder``, or a file.

    Raises:
      UserError: it cannot be loaded; the message names the line.
    """
    name, colon, argument = recipe.partition(":")
    if not name:
        raise UserError("--config is empty: name a recipe; `flowad recipes` lists them")
    name = str(recipes.packaged().get(name, name))
    try:
        with files.open_regular(name) as file:
            code = compile(file.read(), name, "exec")
        module: dict[str, Any] = {"__name__": "recipe", "__file__": name}
        exec(code, module)
        if "get_config" not in module:
            raise UserError("it is no recipe, as it defines no get_config()")
        config = module["get_config"](*[argument] * bool(colon))
        if not isinstance(config, config_dict.ConfigDict):
            kind = type(config).__name__
            raise UserError(f"its get_config() returns {kind} instead of a ConfigDict")
    except Exception as fault:  # a recipe is code and may raise anything
        raise UserError(_explain(name, fault)) from fault
    return config


def choose_named(words: Sequence[str], config: config_dict.ConfigDict) -> None:
    """Gives a config the options of what a flag such as ``--config.data.name=csv`` names."""
    for key, call in sections.CALLS.items():
        if value := value_of(f"config.{call.name}", words):
            # A name that nothing has is refused where it is used, as that of a recipe.
            with contextlib.suppress(UserError):
                sections.choose(config, key, value)


def check_overrides(words: Sequence[str], config: config_dict.ConfigDict) -> None:
    """Raises a UserError if a flag ``--config.KEY=VALUE`` names a key that the config lacks."""
    known = list(flatten(config.to_dict()))
    for match in filter(None, map(_OVERRIDE.match, words)):
        if match[1] not in known:
            raise UserError(f"unknown key --config.{match[1]}: {nearest(match[1], known)}")


def _explain(name: str, fault: Exception) -> str:
    """Why a recipe cannot be loaded, and the line of it where that happened."""
    if isinstance(fault, FileNotFoundError) and not Path(name).exists():
        return f"--config: {_nearest(name)}"
    frames = traceback.extract_tb(fault.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == name]
    line = fault.lineno if isinstance(fault, SyntaxError) else lines[-1] if lines else None
    reason = getattr(fault, "strerror", None) or str(fault)
    if isinstance(fault, ModuleNotFoundError) and fault.name in ("configs", "configs.base"):
        reason = "recipes are imported from flowad_jax.recipes, no longer from configs"
    if lines or isinstance(fault, SyntaxError):
        reason = f"{type(fault).__name__}: {reason}".removesuffix(": ")
    where = f" (line {line})" if line else ""
    return f"--config: {name} cannot be loaded{where}: {reason}"


def _nearest(name: str) -> str:
    """What to write instead of the name of a recipe that does not exist."""
    known = recipes.packaged()
    own = [str(path) for path in sorted(Path(name).parent.glob("*.py"))]
    if Path(name).suffix != ".py":
        hint = nearest(name, [*known, *own])
        return f"there is no recipe {name}: " + (
            hint if hint.startswith("did") else "`flowad recipes` lists them"
        )
    named = name.removesuffix(".py").removeprefix("configs/")
    if named in known:
        return f"there is no file {name}: the recipe of the package is --config={named}"
    return f"there is no file {name}: {nearest(name, own)}" if own else f"there is no file {name}"
