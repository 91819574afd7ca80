"""Data sets by their names, whether they lie in folders or were prepared with TFDS."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from flowad_jax import lookup
from flowad_jax.data import tfds
from flowad_jax.data.about import About
from flowad_jax.data.record import Source
from flowad_jax.errors import LayoutError, UserError

PACKAGE = "flowad_jax.data"
EXPORTS: tuple[str, ...] = ()  # this `build` is no data set


def names() -> list[str]:
    """All data sets of this package."""
    return lookup.choices(PACKAGE)


def find(name: str) -> Callable[..., Source]:
    """Returns the ``build`` of a data set.

    Args:
      name: a module of this package, ``"tfds:"`` and such a module for the set as it was prepared
        with TFDS, or ``"package.module:attribute"``.

    Raises:
      UserError: there is no such data set.
    """
    made = lookup.find(PACKAGE, plain(name))
    return tfds.builder_of(plain(name), made) if is_prepared(name) else made


def is_prepared(name: str) -> bool:
    """Whether a name stands for a set that was prepared with TFDS."""
    return name.startswith(tfds.PREFIX)


def plain(name: str) -> str:
    """The name of a data set without the way it is stored."""
    return name.removeprefix(tfds.PREFIX)


def about(name: str) -> About | None:
    """The description of a data set; None for one of someone else's that has none."""
    return getattr(_module(name), "ABOUT", None)


def build(name: str, root: str | Path, category: str, split: str, **options: Any) -> Source:
    """Lists one split of one category.

    Raises:
      UserError: as the data set, or an option is of another type; where the folder is not as it
        should be, the message ends with how it should.
      TypeError: an option that the data set does not have.
    """
    make = find(name)
    lookup.check_arguments("data.options", make, options)
    try:
        return make(root, category, split, **options)
    except LayoutError as error:
        known = None if is_prepared(name) else about(name)
        raise UserError(f"{error} (expected {known.layout})" if known else str(error)) from error


def categories(name: str, root: str | Path) -> list[str]:
    """The categories that are there.

    Raises:
      UserError: the root is no folder, the data set is unknown or cannot list its categories.
    """
    module = _module(name)
    if is_prepared(name):
        return tfds.categories(root, plain(name))
    if not hasattr(module, "categories"):
        raise UserError(f"data.name='{name}' cannot list its categories: name one of them")
    return list(module.categories(root))


def _module(name: str) -> ModuleType:
    return sys.modules[find(name).__module__]
