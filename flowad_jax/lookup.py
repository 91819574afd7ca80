"""Names in a config become objects: ``"resnet.resnet18"`` is an attribute of a module.

There is no registry. A file put into a package is found by its name, and
``"package.module:attribute"`` reaches code that lives elsewhere. That form is for names that the
user gave, on a command line or in Python: what is read from a file of others goes through
`detector.config_schema.read` first, which refuses it.
"""

import difflib
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from types import ModuleType
from typing import Any

from flowad_jax import schema
from flowad_jax.annotations import schema_of
from flowad_jax.errors import UserError


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns ``"did you mean 'epochs'?"`` for a misspelt word, else the list of choices."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"choices are {', '.join(choices)}"


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """Raises a `UserError` that names the config key if its value is none of the choices."""
    if value not in choices:
        raise UserError(f"{key}='{value}': {nearest(value, choices)}")


def choices(package: str, default: str = "build") -> list[str]:
    """Returns the names that `find` knows in a package of plugins."""
    names = []
    for name, place in _modules(package).items():
        offers = _offers(importlib.import_module(place), default)
        names += [name if item == default else f"{name}.{item}" for item in offers]
    return sorted(names)


def _modules(package: str) -> dict[str, str]:
    """The modules of a package by their short names; a module stands for itself alone."""
    path = getattr(importlib.import_module(package), "__path__", None)
    if path is None:
        return {package.rpartition(".")[2]: package}
    names = (module.name for module in pkgutil.iter_modules(path))
    return {name: f"{package}.{name}" for name in names if not name.startswith("_")}


def _offers(module: ModuleType, default: str) -> Collection[str]:
    """What a plugin offers: its tuple EXPORTS or the keys of SPECS, or else its own ``build``."""
    own = getattr(getattr(module, default, None), "__module__", None) == module.__name__
    variants = getattr(module, "EXPORTS", getattr(module, "SPECS", None))
    return ((default,) if own else ()) if variants is None else variants


def find(package: str, name: str, default: str = "build") -> Any:
    """Returns the object that ``name`` stands for.

    Args:
      package: dotted package of plugins, e.g. ``"flowad_jax.methods"``, or one module of variants,
        ``"flowad_jax.training.schedules"``, which is part of their names.
      name: ``"module"`` (its attribute ``default``), ``"module.attribute"``, or
        ``"any.module:attribute"``, which is imported as given.
      default: the attribute meant by a bare module name.

    Raises:
      UserError: nothing of that name exists; the message lists the choices.
    """
    if ":" in name:
        return _external(name)
    module_name, _, attribute = name.partition(".")
    place = _modules(package).get(module_name)
    if place is not None:
        module = importlib.import_module(place)
        if (attribute or default) in _offers(module, default):
            return getattr(module, attribute or default)
    raise UserError(f"unknown name '{name}': {nearest(name, choices(package, default))}")


def _external(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"cannot import '{name}': {error}") from error


def check_arguments(key: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Checks values of a config against the annotations of the function that takes them.

    Args:
      key: dotted name of the config's section, for the message.
      function: takes the section's keys as arguments.
      arguments: those that the function does not know, or has no plain type for, are left alone.

    Raises:
      UserError: a value is of another type than its annotation, or out of its bounds.
    """
    try:
        hints = typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    except (AttributeError, NameError, TypeError):  # of somebody else's function
        return
    for name, value in arguments.items():
        key_of = f"{key}.{name}"
        wanted = schema_of(hints.get(name, Any))
        schema.check({key_of: value}, "", schema.table({key_of: wanted}))
