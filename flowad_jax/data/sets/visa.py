"""VisA: 12 categories of circuit boards, food and candles, 10,821 images.

Y. Zou, J. Jeong, L. Pemula, D. Zhang, O. Dabeer, "SPot-the-Difference Self-supervised Pre-training
for Anomaly Detection and Segmentation", ECCV 2022. Licence CC BY 4.0. As it is downloaded,

    {root}/split_csv/1cls.csv                            which image belongs to which split
    {root}/{category}/Data/Images/{Normal,Anomaly}/*.JPG
    {root}/{category}/Data/Masks/Anomaly/*.png           0, or the number of a kind of defect

or as the authors' script converts it, into the layout of ``folder``, below the root or in
``{root}/1cls``. Both give the same images in the same order. Where there are both, the first
counts. An image may show several kinds of defect, so all share one: ``"anomaly"``, or the
converted folder's ``"bad"``.
"""

from __future__ import annotations

from pathlib import Path

from flowad_jax.data import csv_table, layout
from flowad_jax.data.csv_table import Row
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError, UserError
from flowad_jax.lookup import check_choice

CARD = DatasetCard(
    title="VisA",
    licence="CC BY 4.0",
    metric="image AUROC, pixel AUROC, AUPRO up to 0.30",
    source="https://github.com/amazon-science/spot-diff",
    layout="{root}/split_csv/1cls.csv, {category}/Data/Images/{Normal,Anomaly}/*.JPG and "
    "{category}/Data/Masks/Anomaly/*.png, or the converted {root}/1cls/{category}/train/good, "
    "test/{good,bad} and ground_truth/bad",
    categories=(
        *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"),
        *("pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"),
    ),
)
_KINDS = {"normal": GOOD, "anomaly": "anomaly"}
_RESTORE = "restore the file that comes with VisA"


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category, in the order of the file names.

    The masks as downloaded hold the numbers of defects, from 1, so that a ``mask_threshold``
    above 0 would lose some of them.

    Raises:
      UserError: the table is missing or wrong, or as ``folder.build``.
    """
    path = layout.find_root(root)
    if not _downloaded(path):
        where = layout.category_folder(layout.find_root(path, "1cls"), category)
        return layout.folder_per_kind(where, split, masks, mask_threshold=mask_threshold)
    table = path / "split_csv" / "1cls.csv"
    if not table.is_file():
        raise LayoutError(f"'{table}' is missing: put the file 1cls.csv that comes with VisA there")
    rows = csv_table.read(table, ("object", "split", "label", "image", "mask"), _RESTORE)
    rows = [row for row in rows if row.cells["object"] == category]
    for row in rows:
        _check(row)
    entries = [_entry(path, row, masks) for row in rows if row.cells["split"] == split]
    if not entries:
        raise LayoutError(f"'{table}' has no {split} images of '{category}': {_RESTORE}")
    entries.sort(key=lambda entry: entry.path)
    return FileSource(entries, masks, mask_threshold=mask_threshold, folders=())


def categories(root: str | Path) -> list[str]:
    """Those that are present."""
    path = layout.find_root(root)
    return _downloaded(path) or layout.category_names(layout.find_root(path, "1cls"))


def _downloaded(root: Path) -> list[str]:
    return [name for name in CARD.categories if (root / name / "Data").is_dir()]


def _check(row: Row) -> None:
    split, label = row.cells["split"], row.cells["label"]
    check_choice(f"{row.where}: split", split, CARD.splits)
    check_choice(f"{row.where}: label", label, _KINDS)
    if split == "train" and label != "normal":
        raise UserError(f"{row.where}: an anomalous image to train on: {_RESTORE}")


def _entry(root: Path, row: Row, rule: str) -> Entry:
    label, names = row.cells["label"], [row.cells["image"]]
    if label != "normal" and row.cells["mask"] and rule != "none":
        names.append(row.cells["mask"])
    image, *masks = (layout.file_below(root, row.where, name, _RESTORE) for name in names)
    return Entry(image, _KINDS[label], tuple(masks))
