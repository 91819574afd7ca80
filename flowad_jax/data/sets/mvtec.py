"""MVTec AD: 15 categories of industrial parts and surfaces, 5,354 images.

P. Bergmann, M. Fauser, D. Sattlegger, C. Steger, "MVTec AD", CVPR 2019. Licence CC BY-NC-SA 4.0:
not for commercial use. The files are in the layout of ``folder``; every anomalous image has a mask.
"""

from __future__ import annotations

from pathlib import Path

from flowad_jax.data import layout
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import FileSource

CARD = DatasetCard(
    title="MVTec AD",
    licence="CC BY-NC-SA 4.0",
    metric="image AUROC, pixel AUROC, AUPRO up to 0.30",
    source="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    layout="{root}/{category}/train/good/*.png, test/{good,KIND}/*.png and "
    "ground_truth/{KIND}/{stem}_mask.png",
    categories=(
        *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
        *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
    ),
)
categories = layout.category_names


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category."""
    where = layout.category_folder(root, category)
    return layout.folder_per_kind(where, split, masks, mask_threshold=mask_threshold)
