"""What a user needs to know of a data set before downloading it."""

from __future__ import annotations

from typing import NamedTuple


class DatasetCard(NamedTuple):
    """The description that every data set exports as ``CARD``.

    Attributes:
      title: the name by which papers call it.
      licence: its terms, or that there are none in writing.
      metric: by which its authors compare methods; those that flowad_jax does not compute say so.
      source: where to get it.
      layout: the files that are expected below the root, in one line for error messages.
      categories: all that there are; ``("",)`` if the set has none, empty if nobody can know.
      splits: of images; ``"validation"`` are normal images set apart for thresholds.
    """

    title: str
    licence: str
    metric: str
    source: str
    layout: str
    categories: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train", "test")
