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

from flowad_jax.data import _files, folder
from flowad_jax.data._files import FileSource
from flowad_jax.data.about import About
from flowad_jax.data.record import GOOD
from flowad_jax.errors import UserError
from flowad_jax.lookup import nearest

ABOUT = About(
    title="MVTec LOCO AD",
    licence="CC BY-NC-SA 4.0",
    metric="image AUROC, AU-sPRO up to 0.05 (not computed here)",
    source="https://www.mvtec.com/company/research/datasets/mvtec-loco",
    layout="{root}/{category}/train/good/*.png, validation/good/*.png, "
    "test/{good,logical_anomalies,structural_anomalies}/*.png and "
    "ground_truth/{KIND}/{stem}/*.png",
    validation="validation",
)
CATEGORIES = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")
_KINDS = {
    "train": (GOOD,),
    "validation": (GOOD,),
    "test": (GOOD, "logical_anomalies", "structural_anomalies"),
}


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category, in the order of kinds and file names.

    Args:
      root: folder of the data set.
      category: one of the five.
      split: ``"train"``, ``"validation"`` or ``"test"``.
      masks: as in ``folder.build``.
      mask_threshold: grey value above which a mask pixel is a defect. Anything above 0 would lose
        anomalies, as the values are numbers of kinds.

    Raises:
      UserError: the category is none of the five, a folder is missing or holds no images, or a
        mask is missing or of another size.
    """
    _files.check_choice("split", split, tuple(_KINDS))
    if category not in CATEGORIES:
        fix = nearest(category, CATEGORIES)
        raise UserError(f"MVTec LOCO AD has no category {category!r}: {fix}")
    where = folder.category_folder(_files.check_root(root), category)
    entries = [
        entry for kind in _KINDS[split] for entry in _files.entries(where / split / kind, kind)
    ]
    truth = where / "ground_truth"
    found = [_files.images(truth / entry.kind / entry.path.stem) for entry in entries]
    return FileSource(_files.attach_masks(entries, found, masks), mask_threshold=mask_threshold)


def categories(root: str | Path) -> list[str]:
    """Those of the five categories that are present, sorted."""
    return [name for name in folder.categories(root) if name in CATEGORIES]
