"""Names in a config become objects: ``"resnet.resnet18"`` is an attribute of a module.

There is no registry. A file put into a package is found by its name, and
``"package.module:attribute"`` reaches code that lives elsewhere.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any

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
    """Names that `find` knows in a package.

    A module offers what its tuple ``EXPORTS`` lists, or else its function ``build``.
    """
    path = importlib.import_module(package).__path__
    names = []
    for found in pkgutil.iter_modules(path):
        module = importlib.import_module(f"{package}.{found.name}")
        offers = _exports(module, default)
        names += [found.name if item == default else f"{found.name}.{item}" for item in offers]
    return sorted(names)


def _exports(module: ModuleType, default: str) -> tuple[str, ...]:
    return getattr(module, "EXPORTS", (default,) if hasattr(module, default) else ())


def find(package: str, name: str, default: str = "build") -> Any:
    """Returns the object that ``name`` stands for.

    Args:
      package: dotted package in which plain names are looked up, e.g. ``"flowad_jax.encoders"``.
      name: ``"module"`` (its attribute ``default``), ``"module.attribute"``, or
        ``"any.module:attribute"``, which is imported as given.
      default: the attribute meant by a bare module name.

    Raises:
      UserError: nothing of that name exists; the message lists the choices.
    """
    if ":" in name:
        return _external(name)
    module_name, _, attribute = name.partition(".")
    try:
        module = importlib.import_module(f"{package}.{module_name}")
    except ModuleNotFoundError as error:
        if error.name != f"{package}.{module_name}":
            raise
        raise _unknown(package, name, default) from None
    if (attribute or default) not in _exports(module, default):
        raise _unknown(package, name, default)
    return getattr(module, attribute or default)


def _unknown(package: str, name: str, default: str) -> UserError:
    return UserError(f"unknown name '{name}': {nearest(name, choices(package, default))}")


def _external(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"cannot import '{name}': {error}") from error
