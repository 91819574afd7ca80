"""Names in a config become objects: ``"resnet.resnet18"`` is an attribute of a module.

There is no registry. A file put into a package is found by its name, and
``"package.module:attribute"`` reaches code that lives elsewhere. That form is for names that the
user gave, on a command line or in Python: what is read from a file of others goes through
`training.config_schema.read` first, which refuses it.
"""

import difflib
import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from flowad_jax import schema
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
    """What a module offers; a function that it imported for its own use is not offered."""
    own = getattr(getattr(module, default, None), "__module__", None) == module.__name__
    return getattr(module, "EXPORTS", (default,) if own else ())


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
    if not module_name.isidentifier() or module_name.startswith("_"):
        raise _unknown(package, name, default)
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


def check_arguments(key: str, function: Callable, arguments: Mapping[str, Any]) -> None:
    """Checks values of a config against the annotations of the function that takes them.

    Args:
      key: dotted name of the config's section, for the message.
      function: takes the section's keys as arguments.
      arguments: those that the function does not know, or has no plain type for, are left alone.

    Raises:
      UserError: a value is of another type than its annotation.
    """
    try:
        hints = typing.get_type_hints(inspect.unwrap(function))
    except (AttributeError, NameError, TypeError):  # of somebody else's function
        return
    for name, value in arguments.items():
        schema.check(
            {f"{key}.{name}": value}, "", schema.table({f"{key}.{name}": _type(hints.get(name))})
        )


_PLAIN: dict[Any, schema.Schema] = {
    bool: schema.BOOLEAN,
    int: schema.integer(),
    float: schema.number(),
    str: schema.TEXT,
    type(None): {"type": "null"},
}


def _type(hint: Any) -> schema.Schema:
    """The schema of an annotation; that of anything where it is none of the plain types."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (tuple, list, Sequence) and inner:
        exact = origin is tuple and inner[-1] is not ...
        most = {"maxItems": len(inner), "minItems": len(inner)} if exact else {}
        same = len({*inner} - {...}) == 1
        return {**schema.array(_type(inner[0]) if same else schema.ANYTHING), **most}
    if origin in (types.UnionType, typing.Union):
        parts = [_type(part) for part in inner]
        if all(isinstance(part.get("type"), str) for part in parts):
            return {k: v for part in parts for k, v in part.items()} | {
                "type": [part["type"] for part in parts]
            }
    return schema.ANYTHING
