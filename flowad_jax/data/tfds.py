"""Data sets prepared with TensorFlow Datasets: one file format for all, read without TensorFlow.

``data.name="tfds:mvtec"`` with ``data.root`` as the folder of prepared sets finds

    {root}/flowad_mvtec/{category}/1.0.0/*.array_record

that ``python -m flowad_jax.data --prepare`` wrote. The records are those of the folder that it was
prepared from, in the same order: pixels and masks as PNG, which loses nothing, and labels, kinds
and paths beside them. Options of the layout, such as ``mask_threshold``, took effect at that time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flowad_jax.data import _files
from flowad_jax.data.record import Record, Source, count
from flowad_jax.errors import UserError

EXPORTS: tuple[str, ...] = ()  # a data set is named tfds:NAME, see `sources`
PREFIX = "tfds:"
VERSION = "1.0.0"
_UNNAMED = "default"  # how TFDS calls the category ""
_AGAIN = "prepare it again with python -m flowad_jax.data --prepare"


def folder(root: str | Path, name: str, category: str) -> Path:
    """Where a prepared category lies."""
    return Path(root).expanduser() / f"flowad_{name}" / config_name(category) / VERSION


def config_name(category: str) -> str:
    """How TFDS calls a category."""
    return category or _UNNAMED


def builder_of(name: str, original: Callable[..., Source]) -> Callable[..., Source]:
    """Returns the ``build`` of a prepared set, with the arguments of the original's."""

    @functools.wraps(original)
    def build(root: str | Path, category: str, split: str, **options: Any) -> Source:
        return PreparedSource(_files.check_root(root), name, category, split, options)

    return build


def categories(root: str | Path, name: str) -> list[str]:
    """The categories that were prepared, sorted."""
    parent = _files.check_root(root) / f"flowad_{name}"
    found = [path.name for path in _files.subfolders(parent) if (path / VERSION).is_dir()]
    return ["" if category == _UNNAMED else category for category in found]


class PreparedSource:
    """A ``record.Source`` that reads one split of a prepared category."""

    def __init__(
        self, root: Path, name: str, category: str, split: str, options: dict[str, Any]
    ) -> None:
        """Opens the files.

        Raises:
          UserError: they are not there, damaged, or prepared with other options.
        """
        self._folder, self._split = folder(root, name, category), split
        if not self._folder.is_dir():
            known = ", ".join(repr(known) for known in categories(root, name)) or "nothing"
            raise UserError(
                f"'{self._folder}' is missing: {name} {category!r} was not prepared there, "
                f"but {known}; {_AGAIN}"
            )
        self._open()
        self._check(options)
        listing = self._listing
        self.kinds, self.paths = list(listing["kinds"]), list(listing["paths"])
        self.labels = np.asarray(listing["labels"], np.int32)
        self.has_masks = bool(listing["has_masks"])

    def __len__(self) -> int:
        """Number of records."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        """Decodes one record.

        Raises:
          UserError: the file is damaged.
        """
        try:
            found = self._records[index]
        except Exception as error:  # array_record and TFDS raise nearly any type
            raise self._damaged(error) from error
        label, kind, path = int(self.labels[index]), self.kinds[index], self.paths[index]
        return Record(found["image"], found["mask"][..., 0] > 0, label, kind, path)

    def describe(self) -> dict[str, Any]:
        """Counts, see ``record.count``."""
        return count(self)

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process gets; it opens the files itself."""
        return {key: value for key, value in self.__dict__.items() if key != "_records"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens the files in another process."""
        self.__dict__ |= state
        self._open()

    def _open(self) -> None:
        import tensorflow_datasets as tfds  # half a second that other sets need not pay

        try:
            builder = tfds.builder_from_directory(self._folder)
            splits, self._options = (builder.info.metadata[k] for k in ("splits", "options"))
            self._listing = splits.get(self._split)
            if self._listing and self._listing["paths"]:
                self._records = builder.as_data_source(split=self._split)
        except Exception as error:  # as in __getitem__
            raise self._damaged(error) from error
        if self._listing is None:
            known = ", ".join(splits)
            raise UserError(f"'{self._folder}' has no split '{self._split}': it has {known}")

    def _check(self, options: dict[str, Any]) -> None:
        for key, value in options.items():
            if key in self._options and self._options[key] != value:
                raise UserError(
                    f"'{self._folder}' was prepared with data.options.{key}="
                    f"{self._options[key]!r}, not {value!r}: remove it and {_AGAIN}"
                )

    def _damaged(self, error: Exception) -> UserError:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return UserError(f"cannot read '{self._folder}': {reason}; {_AGAIN}")
