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

from flowad_jax.data import _files, _table, folder
from flowad_jax.data._files import Entry, FileSource
from flowad_jax.data._table import Row
from flowad_jax.data.about import About
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError, UserError
from flowad_jax.lookup import nearest

ABOUT = About(
    title="VisA",
    licence="CC BY 4.0",
    metric="image AUROC, pixel AUROC, AUPRO up to 0.30",
    source="https://github.com/amazon-science/spot-diff",
    layout="{root}/split_csv/1cls.csv, {category}/Data/Images/{Normal,Anomaly}/*.JPG and "
    "{category}/Data/Masks/Anomaly/*.png, or the converted {root}/1cls/{category}/train/good, "
    "test/{good,bad} and ground_truth/bad",
)
CATEGORIES = (
    "candle",
    "capsules",
    "cashew",
    "chewinggum",
    "fryum",
    "macaroni1",
    "macaroni2",
    "pcb1",
    "pcb2",
    "pcb3",
    "pcb4",
    "pipe_fryum",
)
_TABLE = Path("split_csv", "1cls.csv")
_COLUMNS = ("object", "split", "label", "image", "mask")
_KINDS = {"normal": GOOD, "anomaly": "anomaly"}
_RESTORE = "restore the file that comes with VisA"


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category, in the order of the file names.

    Args:
      root: folder of the data set, in either layout.
      category: one of the 12.
      split: ``"train"`` or ``"test"``.
      masks: as in ``folder.build``.
      mask_threshold: value of a mask above which a pixel is a defect. The files as downloaded
        hold the numbers of defects, from 1, so that anything above 0 would lose some of them.

    Raises:
      UserError: the category is none of the 12, the table is missing or wrong, or as
        ``folder.build``.
    """
    _files.check_choice("split", split, _files.SPLITS)
    if category not in CATEGORIES:
        raise UserError(f"VisA has no category {category!r}: {nearest(category, CATEGORIES)}")
    path = _files.check_root(root)
    if not _downloaded(path):
        where = _converted(path)
        return folder.build(where, category, split, masks=masks, mask_threshold=mask_threshold)
    entries = sorted(_entries(path, category, split, masks), key=lambda e: e.path)
    return FileSource(entries, mask_threshold=mask_threshold, folders=())


def categories(root: str | Path) -> list[str]:
    """Those of the 12 categories that are present, sorted."""
    path = _files.check_root(root)
    present = _downloaded(path) or folder.categories(_converted(path))
    return [name for name in CATEGORIES if name in present]


def _downloaded(root: Path) -> list[str]:
    return [name for name in CATEGORIES if (root / name / "Data").is_dir()]


def _converted(root: Path) -> Path:
    return root / "1cls" if (root / "1cls").is_dir() else root


def _entries(root: Path, category: str, split: str, rule: str) -> list[Entry]:
    rows = [row for row in _rows(root / _TABLE) if row.cells["object"] == category]
    for row in rows:
        _check(row)
    rows = [row for row in rows if row.cells["split"] == split]
    if not rows:
        raise LayoutError(f"'{root / _TABLE}' has no {split} images of '{category}': {_RESTORE}")
    entries = [Entry(_file(root, row, "image"), _KINDS[row.cells["label"]]) for row in rows]
    found = [_mask(root, row) if rule != "none" else None for row in rows]
    return _files.attach_masks(entries, found, rule)


def _rows(table: Path) -> list[Row]:
    if not table.is_file():
        raise LayoutError(f"'{table}' is missing: put the file 1cls.csv that comes with VisA there")
    return _table.rows(table, _COLUMNS, _RESTORE)


def _check(row: Row) -> None:
    split, label = row.cells["split"], row.cells["label"]
    _files.check_choice(f"{row.where}: split", split, _files.SPLITS)
    _files.check_choice(f"{row.where}: label", label, tuple(_KINDS))
    if split == "train" and label != "normal":
        raise UserError(f"{row.where}: an anomalous image to train on: {_RESTORE}")


def _mask(root: Path, row: Row) -> Path | None:
    listed = row.cells["mask"] and row.cells["label"] != "normal"
    return _file(root, row, "mask") if listed else None


def _file(root: Path, row: Row, column: str) -> Path:
    return _table.below(root, row.where, row.cells[column], _RESTORE)
