"""MVTec LOCO AD: five categories with logical and structural anomalies, 3,644 images.

P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger, "Beyond Dents and Scratches: Logical
Constraints in Unsupervised Anomaly Detection and Localization", IJCV 2022. Licence CC BY-NC-SA
4.0: not for commercial use.

    {root}/{category}/train/good/*.png         normal images to learn from
    {root}/{category}/validation/good/*.png    normal images, for thresholds
    {root}/{category}/test/{good,logical_anomalies,structural_anomalies}/*.png
    {root}/{category}/ground_truth/{kind}/{stem}/*.png

An image has a folder of masks, one for each of its anomalies. Their grey values stand for kinds of
anomaly, as listed in ``defects_config.json``; here the mask is the union of all that is not black.
In the authors' metric, sPRO (saturated per-region overlap), finding a part of a region can count as
finding all of it. flowad_jax does not compute it; AUPRO, which it does, is another number.
"""

from __future__ import annotations

from pathlib import Path

from flowad_jax.data import layout
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.record import GOOD

_KINDS = {
    "train": (GOOD,),
    "validation": (GOOD,),
    "test": (GOOD, "logical_anomalies", "structural_anomalies"),
}
CARD = DatasetCard(
    title="MVTec LOCO AD",
    licence="CC BY-NC-SA 4.0",
    metric="image AUROC, AU-sPRO up to 0.05 (not computed here)",
    source="https://www.mvtec.com/company/research/datasets/mvtec-loco",
    layout="{root}/{category}/train/good/*.png, validation/good/*.png, "
    "test/{good,logical_anomalies,structural_anomalies}/*.png and "
    "ground_truth/{KIND}/{stem}/*.png",
    categories=("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"),
    splits=tuple(_KINDS),
)
categories = layout.category_names


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category, in the order of kinds and file names.

    A ``mask_threshold`` above 0 would lose anomalies, as the values are numbers of kinds.
    """
    where = layout.category_folder(root, category)
    entries = [
        Entry(file, kind, tuple(layout.images(where / "ground_truth" / kind / file.stem)))
        for kind in _KINDS[split]
        for file in layout.some_images(where / split / kind)
    ]
    return FileSource(entries, masks, mask_threshold=mask_threshold)
