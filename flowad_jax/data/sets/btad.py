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

from flowad_jax.data import layout
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import FileSource

CARD = DatasetCard(
    title="BTAD",
    licence="none in writing",
    metric="pixel AUROC, AUPRO; later papers image AUROC",
    source="https://avires.dimi.uniud.it/papers/btad/btad.zip",
    layout="{root}/{01,02,03}/train/ok/*, test/{ok,ko}/* and ground_truth/ko/{stem}.*",
    categories=("01", "02", "03"),
)
_ARCHIVE = "BTech_Dataset_transformed"


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category; the threshold 127 suits masks saved as JPEG."""
    where = layout.category_folder(layout.find_root(root, _ARCHIVE), category)
    return layout.folder_per_kind(where, split, masks, mask_threshold=mask_threshold, normal="ok")


def categories(root: str | Path) -> list[str]:
    """Those that are present."""
    return layout.category_names(layout.find_root(root, _ARCHIVE))
