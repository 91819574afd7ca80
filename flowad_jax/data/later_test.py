"""Images to test a finished detector on, labelled or not: a folder, a table, or patterns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowad_jax.data import fingerprint, inputs, layout
from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.findings import examples
from flowad_jax.data.images import WHITE
from flowad_jax.data.record import GOOD, UNKNOWN
from flowad_jax.data.sets import csv
from flowad_jax.errors import UserError

_TABLE = "dataset.csv"


def source(place: str, category: str, options: Mapping[str, Any], leave_out: Path) -> FileSource:
    """Lists test images.

    Args:
      place: a folder with ``test/good`` and ``test/KIND``, and maybe ``ground_truth``; a table, or
        a folder with ``dataset.csv``, of which the test lines count; or anything that predict.py
        takes, whose labels are unknown.
      category: of the detector; looked for in a folder or table that has several.
      options: ``data.options`` of the detector; those that matter here count.
      leave_out: folder whose images do not count.

    Raises:
      UserError: there are no such images, or they are not as they should be.
    """
    path = Path(place).expanduser()
    usual = {"masks": "auto", "mask_threshold": 0, "white": WHITE}
    chosen = {key: options.get(key, value) for key, value in usual.items()}
    if path.suffix.lower() == ".csv" or (path / _TABLE).is_file():
        own = category if category in csv.categories(path) else ""
        if not len(found := csv.build(path, own, "test", **chosen)):
            raise UserError(f"--data: no line of '{place}' has the split 'test': add some")
        return found
    normal = options.get("normal", GOOD)
    places = [path, path / category, *([path.parent] if path.name == "test" else [])]
    for folder in places:
        if layout.subfolders(folder / "test"):
            return layout.folder_per_kind(folder, "test", normal=normal, **chosen)
    if (path / normal).is_dir():
        fix = f"move it and the folders of defects into '{path / 'test'}', so that labels count"
        raise UserError(f"--data: '{path}' has a folder '{normal}', but none called 'test': {fix}")
    images = inputs.find(inputs.split([place], "--data"), leave_out, "--data").images.values()
    return FileSource([Entry(image, UNKNOWN) for image in images], white=chosen["white"])


def check_new(found: FileSource, learned: Mapping[str, Mapping[str, str]], place: str) -> None:
    """Raises a UserError if a detector was made with some of the images.

    ``learned`` are names and checksums by what they were for: ``train`` or ``holdout``.
    """
    known = {digest for use in ("train", "holdout") for digest in learned.get(use, {}).values()}
    now = fingerprint.listing(found, "", "test")
    if seen := [name for name, digest in now.items() if digest in known]:
        raise UserError(
            f"--data: {len(seen)} of {len(now)} images in '{place}' were trained on or set the "
            f"thresholds ({examples(seen)}): leave them out, as their scores say nothing about new "
            "images"
        )
