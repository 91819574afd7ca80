"""Names in a config become objects: ``"resnet.resnet18"`` is an attribute of a module.

There is no registry. A file put into a package is found by its name, and
``"package.module:attribute"`` reaches code that lives elsewhere.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

from flowad_jax.errors import UserError


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns a hint such as ``"did you mean 'epochs'? Choices: ..."`` for a misspelt word."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Choices: {', '.join(choices)}"


def modules(package: str) -> list[str]:
    """Public module names directly inside a package, sorted."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


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
    if module_name not in modules(package):
        raise UserError(f"unknown name '{name}': {nearest(module_name, modules(package))}")
    module = importlib.import_module(f"{package}.{module_name}")
    attribute = attribute or default
    exported = getattr(module, "EXPORTS", (default,))
    if attribute not in exported:
        choices = [f"{module_name}.{item}" for item in exported]
        raise UserError(f"unknown name '{name}': {nearest(name, choices)}")
    return getattr(module, attribute)


def _external(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot import '{name}': {error}") from error
