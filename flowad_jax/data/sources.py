"""Data sets by their names, whether they lie in folders or were prepared with TFDS."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from flowad_jax import lookup
from flowad_jax.data import tfds_source
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.record import Source
from flowad_jax.errors import LayoutError, UserError

_PACKAGE = "flowad_jax.data.sets"


def names() -> list[str]:
    """All data sets of this package."""
    return lookup.choices(_PACKAGE)


def find(name: str) -> Callable[..., Source]:
    """Returns the ``build`` of a data set.

    Args:
      name: a module of `flowad_jax.data.sets`, ``"tfds:"`` and such a module for the set as it was
        prepared with TFDS, or ``"package.module:attribute"``.

    Raises:
      UserError: there is no such data set.
    """
    original = lookup.find(_PACKAGE, plain(name))
    if not is_prepared(name):
        return original

    @functools.wraps(original)
    def build(root: str | Path, category: str, split: str, **options: Any) -> Source:
        return tfds_source.TfdsSource(root, plain(name), category, split, options)

    return build


def is_prepared(name: str) -> bool:
    """Whether a name stands for a set that was prepared with TFDS."""
    return name.startswith(tfds_source.PREFIX)


def plain(name: str) -> str:
    """The name of a data set without the way it is stored."""
    return name.removeprefix(tfds_source.PREFIX)


def dataset_card(name: str) -> DatasetCard | None:
    """The description of a data set; None for one of someone else's that has none."""
    return getattr(_module(name), "CARD", None)


def build(name: str, root: str | Path, category: str, split: str, **options: Any) -> Source:
    """Lists one split of one category.

    Raises:
      UserError: as the data set, there is no such category or split, or an option is of another
        type; where the folder is not as it should be, the message ends with how it should.
      TypeError: an option that the data set does not have.
    """
    make, card = find(name), dataset_card(name)
    lookup.check_arguments("data.options", make, options)
    if card and card.categories and category not in card.categories:
        if card.categories == ("",):
            raise UserError(f"data.category={category!r}: {name} has no categories, use ''")
        hint = lookup.nearest(category, card.categories)
        raise UserError(f"{card.title} has no category {category!r}: {hint}")
    if card is None or is_prepared(name):
        return make(root, category, split, **options)
    lookup.check_choice("split", split, card.splits)
    try:
        return make(root, category, split, **options)
    except LayoutError as error:
        raise UserError(f"{error} (expected {card.layout})") from error


def categories(name: str, root: str | Path) -> list[str]:
    """The categories that are there, in the order of the data set's card or of their names.

    Raises:
      UserError: the root is no folder, the data set is unknown or cannot list its categories.
    """
    module, card = _module(name), dataset_card(name)
    if is_prepared(name):
        return tfds_source.categories(root, plain(name))
    if not hasattr(module, "categories"):
        raise UserError(f"data.name='{name}' cannot list its categories: name one of them")
    found = module.categories(root)
    return [c for c in card.categories if c in found] if card and card.categories else [*found]


def _module(name: str) -> ModuleType:
    return sys.modules[lookup.find(_PACKAGE, plain(name)).__module__]
