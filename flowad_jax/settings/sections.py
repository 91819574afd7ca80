"""The sections of a config, made from the signatures of what they call.

A section with a name is a call: the name finds a function of the package, the other keys are its
arguments. So its keys, their defaults and types are those of the signature, and their meanings
those of its docstring. `keys` has the keys that are no argument of anything.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import config_dict

from flowad_jax import lookup
from flowad_jax.settings import keys


class Call(NamedTuple):
    """The key of the name that chooses what a section calls, and the plugins that it may name."""

    name: str
    plugins: str


CALLS = {
    "data.options": Call("data.name", "flowad_jax.data.sets"),
    "synthesis": Call("synthesis.name", "flowad_jax.synthesis"),
    "method": Call("method.name", "flowad_jax.methods"),
    "train.schedule": Call("train.schedule.name", "flowad_jax.training.schedules"),
}


class Parameter(NamedTuple):
    """A key: its default, its type annotation and its meaning."""

    default: Any
    hint: Any
    meaning: str


def section(key: str, name: str | None = None) -> config_dict.ConfigDict:
    """Returns a section of a config with all defaults.

    Args:
      key: such as ``"eval"``, or ``""`` for the keys without a section.
      name: of what the section calls.

    Raises:
      UserError: there is nothing of that name.
    """
    made = config_dict.ConfigDict({"name": name} if name and key != "data.options" else {})
    for word, (default, hint, _) in parameters(key, name).items():
        if word == "name" and name:
            continue
        kind = _allowed_type(hint)
        if default is None or kind:
            made[word] = config_dict.placeholder(kind or object)
        if default is not None:
            made[word] = default
    return made


def parameters(key: str, name: str | None = None) -> dict[str, Parameter]:
    """Returns the keys of a section, see `section`."""
    found = of_function(keys.SECTIONS[key]) if key in keys.SECTIONS else {}
    if key == "encoder":
        found = of_function(importlib.import_module("flowad_jax.encoders.load").load)
        del found["seed"]  # the run's
    elif name:
        function = _function(key, name)
        found |= of_function(function)
        if key == "synthesis":
            found |= _synthesis_options(function)
        if key == "data.options":  # those of several sets are explained once
            usual = meanings(_function(key, "folder"))
            found = {
                word: parameter._replace(meaning=parameter.meaning or usual.get(word, ""))
                for word, parameter in found.items()
            }
    return found


def of_function(function: Callable[..., Any]) -> dict[str, Parameter]:
    """Returns the parameters of a function or dataclass that have a default."""
    try:
        signature = inspect.signature(function).parameters
        hints = typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    except (AttributeError, NameError, TypeError, ValueError):  # of somebody else's function
        return {}
    if dataclasses.is_dataclass(function):
        instance = function()
        defaults = {word: getattr(instance, word) for word in signature}
    else:
        pairs = ((word, parameter.default) for word, parameter in signature.items())
        defaults = {word: value for word, value in pairs if value is not inspect.Parameter.empty}
    told = meanings(function)
    return {
        word: Parameter(default, hints.get(word, Any), told.get(word, ""))
        for word, default in defaults.items()
    }


def meanings(function: Callable[..., Any]) -> dict[str, str]:
    """Returns what a Google-style docstring says about each argument or attribute."""
    text = inspect.getdoc(function) or ""
    block = re.search(r"^(?:Args|Attributes):\n((?: .*\n?|\n)+)", text, re.M)
    items = re.findall(r"^  ([\w, ]+): (.*\n?(?:    .*\n?)*)", block[1] if block else "", re.M)
    return {
        name.strip(): " ".join(words.split()) for names, words in items for name in names.split(",")
    }


def choose(config: config_dict.ConfigDict, key: str, name: str) -> None:
    """Lets a section call something else, in place.

    Its options become those of the new name; what differs from a default is kept where the new name
    has such an option.

    Args:
      config: a complete config.
      key: one of `CALLS`.
      name: of what it shall call.

    Raises:
      UserError: there is nothing of that name.
    """
    made = section(key, name)
    *above, last = key.split(".")
    holder = config
    for step in above:
        holder = holder[step]
    old = parameters(key, holder.name if key == "data.options" else holder[last].name)
    for word, value in holder[last].items():
        given = word not in old or old[word].default != value
        if given and word in made and word != "name":
            made[word] = value
    with config.unlocked():
        holder[last] = made
        if key == "data.options":
            holder.name = name


def _function(key: str, name: str) -> Callable[..., Any]:
    if key == "data.options":
        return importlib.import_module("flowad_jax.data.sources").find(name)
    # cutpaste.scar has the options of cutpaste
    short = name.partition(".")[0] if key == "synthesis" else name
    return lookup.find(CALLS[key].plugins, short)


def _synthesis_options(build: Callable[..., Any]) -> dict[str, Parameter]:
    """The fields of a module's ``Settings``; None stands for the ``Constants`` of a category."""
    module = sys.modules[build.__module__]
    found = of_function(module.Settings) if hasattr(module, "Settings") else {}
    constants = of_function(module.Constants) if hasattr(module, "Constants") else {}
    unset = {
        word: value._replace(default=None, hint=value.hint | None)
        for word, value in constants.items()
    }
    return found | unset


def _allowed_type(hint: Any) -> type | None:
    """What a key may hold whose annotation allows several types; ``object`` beside None."""
    if typing.get_origin(found := _plain(hint)) not in (types.UnionType, typing.Union):
        return None
    others = [_plain(part) for part in typing.get_args(found) if part is not type(None)]
    return object if len(others) > 1 else typing.get_origin(others[0]) or others[0]


def _plain(hint: Any) -> Any:
    """An annotation without its bounds."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
