"""Data sets prepared with TensorFlow Datasets: one file format for all, read without TensorFlow.

``data.name="tfds:mvtec"`` with ``data.root`` as the folder of prepared sets finds

    {root}/flowad_mvtec/{category}/1.0.0/*.array_record

that ``flowad data --prepare`` wrote. The records are those of the folder that it was
prepared from, in the same order: pixels and masks as PNG, which loses nothing, and labels, kinds
and paths beside them. Options of the layout, such as ``mask_threshold``, took effect at that time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flowad_jax.data import layout
from flowad_jax.data.record import Record
from flowad_jax.errors import UserError

PREFIX = "tfds:"
VERSION = "1.0.0"
_UNNAMED = "default"  # how TFDS calls the category ""
_AGAIN = "prepare it again with flowad data --prepare"


def folder(root: str | Path, name: str, category: str) -> Path:
    """Where a prepared category lies."""
    return Path(root).expanduser() / f"flowad_{name}" / config_name(category) / VERSION


def config_name(category: str) -> str:
    """How TFDS calls a category."""
    return category or _UNNAMED


def categories(root: str | Path, name: str) -> list[str]:
    """The categories that were prepared, sorted."""
    parent = layout.find_root(root) / f"flowad_{name}"
    found = [path.name for path in layout.subfolders(parent) if (path / VERSION).is_dir()]
    return ["" if category == _UNNAMED else category for category in found]


class TfdsSource:
    """A ``record.Source`` that reads one split of a prepared category."""

    def __init__(
        self, root: str | Path, name: str, category: str, split: str, options: dict[str, Any]
    ) -> None:
        """Opens the files.

        Raises:
          UserError: they are not there, damaged, or prepared with other options.
        """
        self._folder, self._split = folder(layout.find_root(root), name, category), split
        if not self._folder.is_dir():
            known = ", ".join(repr(known) for known in categories(root, name)) or "nothing"
            raise UserError(
                f"'{self._folder}' is missing: {name} {category!r} was not prepared there, "
                f"but {known}; {_AGAIN}"
            )
        splits, made_with = self._open()
        for key, value in options.items():
            if key in made_with and made_with[key] != value:
                raise UserError(
                    f"'{self._folder}' was prepared with data.options.{key}="
                    f"{made_with[key]!r}, not {value!r}: remove it and {_AGAIN}"
                )
        listing = splits[split]
        self.kinds, self.paths = list(listing["kinds"]), list(listing["paths"])
        self.labels = np.asarray(listing["labels"], np.int32)
        self.has_masks = bool(listing["has_masks"])

    def __len__(self) -> int:
        """Number of records."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        """Decodes one record; a damaged file is a UserError."""
        try:
            found = self._records[index]
        except Exception as error:  # array_record and TFDS raise nearly any type
            raise self._damaged(error) from error
        label, kind, path = int(self.labels[index]), self.kinds[index], self.paths[index]
        return Record(found["image"], found["mask"][..., 0] > 0, label, kind, path)

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process gets; it opens the files itself."""
        return {key: value for key, value in self.__dict__.items() if key != "_records"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens the files in another process."""
        self.__dict__ |= state
        self._open()

    def _open(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Opens the records; returns what lists them by split, and the options of the layout."""
        import tensorflow_datasets as tfds  # half a second that other sets need not pay

        try:
            builder = tfds.builder_from_directory(self._folder)
            splits, options = (builder.info.metadata[k] for k in ("splits", "options"))
            if self._split in splits and splits[self._split]["paths"]:
                self._records = builder.as_data_source(split=self._split)
        except Exception as error:  # as in __getitem__
            raise self._damaged(error) from error
        if self._split not in splits:
            known = ", ".join(splits)
            raise UserError(f"'{self._folder}' has no split '{self._split}': it has {known}")
        return splits, options

    def _damaged(self, error: Exception) -> UserError:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return UserError(f"cannot read '{self._folder}': {reason}; {_AGAIN}")
