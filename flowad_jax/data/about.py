"""What a user needs to know of a data set before downloading it."""

from __future__ import annotations

from typing import NamedTuple


class About(NamedTuple):
    """The description that every data set exports as ``ABOUT``.

    Attributes:
      title: the name by which papers call it.
      licence: its terms, or that there are none in writing.
      metric: by which its authors compare methods; those that flowad_jax does not compute say so.
      source: where to get it.
      layout: the files that are expected below the root, in one line for error messages.
      validation: the split of normal images that its authors set apart for thresholds, or "".
    """

    title: str
    licence: str
    metric: str
    source: str
    layout: str
    validation: str = ""
