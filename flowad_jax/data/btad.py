"""BTAD, beanTech anomaly detection: three industrial products with body and surface defects.

P. Mishra, R. Verk, D. Fornasier, C. Piciarelli, G. L. Foresti, "VT-ADL: A Vision Transformer
Network for Image Anomaly Detection and Localization", ISIE 2021. Published without a licence text.

    {root}/{category}/train/ok/*         normal images to learn from
    {root}/{category}/test/ok/*          normal images
    {root}/{category}/test/ko/*          anomalous images
    {root}/{category}/ground_truth/ko/*  masks: {stem}.png for 01 and 02, {stem}.bmp for 03

The root may be the folder ``BTech_Dataset_transformed`` of the archive or the one that holds it.
Copies of the set differ in the names and formats of masks: {stem}_mask is known too, and any
format of docs/images.md. Normal images are of kind ``"good"`` here, as in every other set.
"""

from __future__ import annotations

from pathlib import Path

from flowad_jax.data import _files, folder
from flowad_jax.data._files import FileSource
from flowad_jax.data.about import About
from flowad_jax.errors import UserError
from flowad_jax.lookup import nearest

ABOUT = About(
    title="BTAD",
    licence="none in writing",
    metric="pixel AUROC, AUPRO; later papers image AUROC",
    source="https://avires.dimi.uniud.it/papers/btad/btad.zip",
    layout="{root}/{01,02,03}/train/ok/*, test/{ok,ko}/* and ground_truth/ko/{stem}.*",
)
CATEGORIES = ("01", "02", "03")
_ARCHIVE = "BTech_Dataset_transformed"


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category, in the order of the file names.

    Args:
      root: folder of the data set.
      category: ``"01"``, ``"02"`` or ``"03"``.
      split: ``"train"`` or ``"test"``.
      masks: as in ``folder.build``.
      mask_threshold: grey value, of 255, above which a mask pixel is a defect; 127 suits masks
        that someone saved as JPEG.

    Raises:
      UserError: the category is none of the three, a folder is missing or holds no images, or a
        mask is missing or of another size.
    """
    if category not in CATEGORIES:
        raise UserError(f"BTAD has no category {category!r}: {nearest(category, CATEGORIES)}")
    return folder.build(
        _root(root), category, split, masks=masks, mask_threshold=mask_threshold, normal="ok"
    )


def categories(root: str | Path) -> list[str]:
    """Those of the three categories that are present, sorted."""
    return [name for name in folder.categories(_root(root)) if name in CATEGORIES]


def _root(root: str | Path) -> Path:
    path = _files.check_root(root)
    return path / _ARCHIVE if (path / _ARCHIVE).is_dir() else path
