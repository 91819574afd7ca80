"""MVTec AD 2: eight categories that are hard to inspect, under changing light.

L. Heckler-Kram, J.-H. Neudeck, U. Scheler, R. König, C. Steger, "The MVTec AD 2 Dataset: Advanced
Scenarios for Unsupervised Anomaly Detection", arXiv 2503.21622, 2025. Licence CC BY-NC-SA 4.0: not
for commercial use.

    {root}/{category}/train/good/*.png                          normal images to learn from
    {root}/{category}/validation/good/*.png                     normal images, for thresholds
    {root}/{category}/test_public/{good,bad}/*.png              the split "test"
    {root}/{category}/test_public/ground_truth/bad/{stem}_mask.png
    {root}/{category}/{test_private,test_private_mixed}/*.png   labels are not published

The private splits are evaluated by the authors' server alone. Their records are of kind
``"unknown"`` with label -1 and have no masks; what a trained detector makes of them is written by

    flowad predict --workdir=... --input={root}/{category}/test_private --output=...

The public test images give a first impression of what the server will say.
"""

from __future__ import annotations

from pathlib import Path

from flowad_jax.data import layout
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.record import GOOD, UNKNOWN

_PUBLIC = "test_public"
# Folders of every split and the kind of their images.
_FOLDERS = {
    "train": {"train/good": GOOD},
    "validation": {"validation/good": GOOD},
    "test": {f"{_PUBLIC}/bad": "bad", f"{_PUBLIC}/good": GOOD},
    "test_private": {"test_private": UNKNOWN},
    "test_private_mixed": {"test_private_mixed": UNKNOWN},
}
CARD = DatasetCard(
    title="MVTec AD 2",
    licence="CC BY-NC-SA 4.0",
    metric="AUPRO up to 0.05, SegF1; of private splits by the authors' server",
    source="https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
    layout="{root}/{category}/train/good/*.png, validation/good/*.png, "
    "test_public/{good,bad}/*.png, test_public/ground_truth/bad/{stem}_mask.png, "
    "test_private/*.png and test_private_mixed/*.png",
    categories=(
        *("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts"),
    ),
    splits=tuple(_FOLDERS),
)
categories = layout.category_names


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category, in the order of kinds and file names."""
    where = layout.category_folder(root, category)
    truth = layout.by_stem(where / _PUBLIC / "ground_truth" / "bad")
    entries = [
        Entry(file, kind, layout.first(truth, [f"{file.stem}_mask"]))
        for folder, kind in _FOLDERS[split].items()
        for file in layout.some_images(where / folder)
    ]
    return FileSource(entries, masks, mask_threshold=mask_threshold)
