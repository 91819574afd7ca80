"""Data sets by their names, whether they lie in folders or were prepared with TFDS."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from flowad_jax import lookup
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
      name: a module of this package, or ``"package.module:attribute"``.

    Raises:
      UserError: there is no such data set.
    """
    return lookup.find(PACKAGE, name)


def about(name: str) -> About | None:
    """The description of a data set; None for one of someone else's that has none."""
    return getattr(_module(name), "ABOUT", None)


def build(name: str, root: str | Path, category: str, split: str, **options: Any) -> Source:
    """Lists one split of one category.

    Raises:
      UserError: as the data set; where the folder is not as it should be, the message ends with
        how it should.
      TypeError: an option that the data set does not have.
    """
    make = find(name)
    try:
        return make(root, category, split, **options)
    except LayoutError as error:
        known = about(name)
        raise UserError(f"{error} (expected {known.layout})" if known else str(error)) from error


def categories(name: str, root: str | Path) -> list[str]:
    """The categories that are there.

    Raises:
      UserError: the root is no folder, the data set is unknown or cannot list its categories.
    """
    module = _module(name)
    if not hasattr(module, "categories"):
        raise UserError(f"data.name='{name}' cannot list its categories: name one of them")
    return list(module.categories(root))


def _module(name: str) -> ModuleType:
    made = find(name)
    return sys.modules[getattr(made, "func", made).__module__]
