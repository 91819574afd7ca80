"""MVTec AD 2: eight categories that are hard to inspect, under changing light.

L. Heckler-Kram, J.-H. Neudeck, U. Scheler, R. König, C. Steger, "The MVTec AD 2 Dataset: Advanced
Scenarios for Unsupervised Anomaly Detection", arXiv 2503.21622, 2025. Licence CC BY-NC-SA 4.0: not
for commercial use.

    {root}/{category}/train/good/*.png                          normal images to learn from
    {root}/{category}/validation/good/*.png                     normal images, for thresholds
    {root}/{category}/test_public/{good,bad}/*.png              the split "test"
    {root}/{category}/test_public/ground_truth/bad/{stem}_mask.png
    {root}/{category}/{test_private,test_private_mixed}/*.png   nobody publishes their labels

The private splits are evaluated by the authors' server alone. Their records are of kind
``"unknown"`` with label -1 and have no masks; what a trained detector makes of them is written by

    python predict.py --workdir=... --input={root}/{category}/test_private --output=...

The public test images give a first impression of what the server will say. Its SegF1 is not
computed here.
"""

from __future__ import annotations

from pathlib import Path

from flowad_jax.data import _files, folder
from flowad_jax.data._files import FileSource
from flowad_jax.data.about import About
from flowad_jax.data.record import GOOD, UNKNOWN
from flowad_jax.errors import UserError
from flowad_jax.lookup import nearest

ABOUT = About(
    title="MVTec AD 2",
    licence="CC BY-NC-SA 4.0",
    metric="AUPRO up to 0.05, SegF1 (not computed here); of private splits by the authors' server",
    source="https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
    layout="{root}/{category}/train/good/*.png, validation/good/*.png, "
    "test_public/{good,bad}/*.png, test_public/ground_truth/bad/{stem}_mask.png, "
    "test_private/*.png and test_private_mixed/*.png",
    validation="validation",
)
CATEGORIES = (
    "can",
    "fabric",
    "fruit_jelly",
    "rice",
    "sheet_metal",
    "vial",
    "wallplugs",
    "walnuts",
)
_PUBLIC = "test_public"
# Folders of every split and the kind of their images.
_FOLDERS = {
    "train": {"train/good": GOOD},
    "validation": {"validation/good": GOOD},
    "test": {f"{_PUBLIC}/bad": "bad", f"{_PUBLIC}/good": GOOD},
    "test_private": {"test_private": UNKNOWN},
    "test_private_mixed": {"test_private_mixed": UNKNOWN},
}


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category, in the order of kinds and file names.

    Args:
      root: folder of the data set.
      category: one of the eight.
      split: ``"train"``, ``"validation"``, ``"test"``, which is the public one,
        ``"test_private"`` or ``"test_private_mixed"``.
      masks: as in ``folder.build``; private images have none in any case.
      mask_threshold: grey value, of 255, above which a mask pixel is a defect.

    Raises:
      UserError: the category is none of the eight, a folder is missing or holds no images, or a
        mask is missing or of another size.
    """
    _files.check_choice("split", split, tuple(_FOLDERS))
    if category not in CATEGORIES:
        raise UserError(f"MVTec AD 2 has no category {category!r}: {nearest(category, CATEGORIES)}")
    where = folder.category_folder(_files.check_root(root), category)
    listed = (_files.entries(where / name, kind) for name, kind in _FOLDERS[split].items())
    entries = [entry for of_kind in listed for entry in of_kind]
    truth = where / _PUBLIC / "ground_truth" / "bad"
    by_stem = {file.stem: file for file in _files.images(truth)}
    found = [by_stem.get(f"{entry.path.stem}_mask") for entry in entries]
    return FileSource(_files.attach_masks(entries, found, masks), mask_threshold=mask_threshold)


def categories(root: str | Path) -> list[str]:
    """Those of the eight categories that are present, sorted."""
    return [name for name in folder.categories(root) if name in CATEGORIES]
