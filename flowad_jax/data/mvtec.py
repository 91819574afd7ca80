"""MVTec AD: 15 categories of industrial parts and surfaces, 5,354 images.

P. Bergmann, M. Fauser, D. Sattlegger, C. Steger, "MVTec AD", CVPR 2019. Licence CC BY-NC-SA 4.0:
not for commercial use. The files are in the layout of ``folder``; every anomalous image has a mask.
"""

from __future__ import annotations

from pathlib import Path

from flowad_jax.data import folder
from flowad_jax.data._files import FileSource
from flowad_jax.data.about import About
from flowad_jax.errors import UserError
from flowad_jax.lookup import nearest

ABOUT = About(
    title="MVTec AD",
    licence="CC BY-NC-SA 4.0",
    metric="image AUROC, pixel AUROC, AUPRO up to 0.30",
    source="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    layout="{root}/{category}/train/good/*.png, test/{good,KIND}/*.png and "
    "ground_truth/{KIND}/{stem}_mask.png",
)
CATEGORIES = (
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
)


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category; the options are those of ``folder.build``.

    Raises:
      UserError: the category is none of the 15, or as ``folder.build``.
    """
    if category not in CATEGORIES:
        raise UserError(f"MVTec AD has no category {category!r}: {nearest(category, CATEGORIES)}")
    return folder.build(root, category, split, masks=masks, mask_threshold=mask_threshold)


def categories(root: str | Path) -> list[str]:
    """Those of the 15 categories that are present, sorted."""
    return [name for name in folder.categories(root) if name in CATEGORIES]
