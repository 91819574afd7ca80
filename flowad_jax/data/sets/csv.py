"""Any images, wherever they lie, with a table that says what they are.

The table has a line for each image and a header with the names of its columns. Their order does
not matter, and columns of other names are not looked at:

    image     path of the image, relative to the folder of the table
    split     train, validation or test; only train has to be there
    label     good, normal or 0; anomalous or 1; any other word is the kind of defect, and
              "unknown" says that nobody knows
    mask      optional: path of the mask, several joined by ";", empty for none
    category  optional: a table may hold several sets, each with its own detector
    time      optional: when it was taken, as 2026-02-24T08:30:00; the report draws scores over it
    sample    optional: what it shows, where several images show the same

Cells are separated by commas, semicolons or tabs; the text is UTF-8. Images to train on and to
validate with have to be good. A folder may hold ``dataset.csv``, or another table that the option
names, or the root is the table itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from flowad_jax.data import csv_table, layout
from flowad_jax.data.csv_table import Row
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.images import WHITE
from flowad_jax.data.record import GOOD, UNKNOWN
from flowad_jax.errors import LayoutError, UserError
from flowad_jax.lookup import check_choice

CARD = DatasetCard(
    title="Your own table of images",
    licence="yours",
    metric="image AUROC; with masks also pixel AUROC and AUPRO",
    source="your own images",
    layout="{root}/dataset.csv with the columns image, split and label, and, if there are such, "
    "mask and category",
    splits=("train", "validation", "test"),
)
_TABLE = "dataset.csv"
_KINDS = {
    **dict.fromkeys(("good", "normal", "0"), GOOD),
    **dict.fromkeys(("anomalous", "1"), "anomalous"),
    "unknown": UNKNOWN,
}
_CORRECT = "correct the table, and save it as CSV in UTF-8"
_ABSENT = "correct the path: it starts at the folder of the table, with / between folders"


def build(
    root: str | Path,
    category: str,
    split: str,
    *,
    table: str = _TABLE,
    masks: str = "auto",
    mask_threshold: int = 0,
    white: int = WHITE,
) -> FileSource:
    """Lists one split of one category, in the order of the table.

    Args:
      root: folder that holds the table, or the table itself.
      category: a word of the column ``category``, or ``""`` where there is no such column.
      split: ``"train"``, ``"validation"`` or ``"test"``.
      table: path of the table below the root; a root that is a table comes first.
      masks: as in ``folder.build``.
      mask_threshold: grey value, of 255, above which a mask pixel is a defect.
      white: value of a 16-bit image that is shown as white.

    Raises:
      UserError: the table is missing or damaged, a line of the category is wrong, the category
        has no lines to train on, an image is missing, or a mask is missing or of another size.
    """
    file = _find_table(root, table)
    rows = _of_category(_read(file), category, file)
    kinds = [_kind(row) for row in rows]
    entries = [
        _entry(file, row, kind, masks)
        for row, kind in zip(rows, kinds, strict=True)
        if row.cells["split"] == split
    ]
    if not entries and split == "train":
        whose = f" of '{category}'" if category else ""
        raise LayoutError(f"no line{whose} in '{file}' has the split '{split}': add some")
    return FileSource(entries, masks, mask_threshold=mask_threshold, white=white, folders=())


def categories(root: str | Path) -> list[str]:
    """Words of the column ``category`` of ``dataset.csv``, sorted; ``[""]`` without the column.

    Where the table has another name, the root has to be the table itself.
    """
    return _categories(_read(_find_table(root, _TABLE)))


def _find_table(root: str | Path, name: str) -> Path:
    path = Path(root or "").expanduser()
    if root and os.path.isfile(path):
        return path
    path = layout.find_root(root)
    if name == _TABLE and not (path / name).is_file():
        fix = "put it there, or name another with data.options.table"
        raise LayoutError(f"'{path}' has no table '{name}': {fix}")
    return layout.file_below(path, "data.options.table", name, "name the table", "correct the name")


def _read(table: Path) -> list[Row]:
    columns, optional = ("image", "split", "label"), ("mask", "category", "time", "sample")
    return csv_table.read(table, columns, _CORRECT, optional=optional, delimiters=",;\t")


def _categories(rows: list[Row]) -> list[str]:
    return sorted({row.cells.get("category", "") for row in rows})


def _of_category(rows: list[Row], category: str, table: Path) -> list[Row]:
    names = _categories(rows)
    if not names:
        raise LayoutError(f"'{table}' has no lines but the header: add a line for each image")
    if category in names:
        return [row for row in rows if row.cells.get("category", "") == category]
    if names == [""]:
        raise UserError(f"data.category={category!r}: '{table}' has no categories, use ''")
    there = layout.holdings(category, [" ".join(name.split()) for name in names])
    if not category:
        raise UserError(f"data.category is not set, but '{table}' has categories: {there}")
    raise UserError(f"'{table}' has no category {category!r}: {there}")


def _kind(row: Row) -> str:
    label, split = row.cells["label"], row.cells["split"]
    check_choice(f"{row.where}: split", split, CARD.splits)
    if not label:
        raise UserError(f"{row.where}: the label is empty: write good, anomalous or the defect")
    kind = _KINDS.get(label.casefold(), label)
    if kind != GOOD and split != "test":
        use = "an image to train on" if split == "train" else "a validation image"
        raise UserError(f"{row.where}: {use} has the label {label!r}: it must be good")
    return kind


def _entry(table: Path, row: Row, kind: str, rule: str) -> Entry:
    masked = rule != "none" and kind not in (GOOD, UNKNOWN)
    words = row.cells.get("mask", "").split(";") if masked else []
    names = [row.cells["image"], *(word.strip() for word in words if word.strip())]
    image, *masks = (
        layout.file_below(table.parent, row.where, name, _CORRECT, _ABSENT) for name in names
    )
    sample, time = (row.cells.get(name, "") for name in ("sample", "time"))
    return Entry(image, kind, tuple(masks), sample, time)
