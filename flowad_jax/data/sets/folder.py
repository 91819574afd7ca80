"""Images in folders: in the shape of MVTec AD, with masks or without, or normal images alone.

    {root}/{category}/train/good/*            normal images to learn from
    {root}/{category}/test/good/*             normal images
    {root}/{category}/test/{kind}/*           anomalous images, one folder per kind of defect
    {root}/{category}/ground_truth/{kind}/*   masks: {stem}_mask.png or {stem}.png

Any format of docs/images.md is accepted, also mixed, and for masks too. Files and folders are
taken in the order of their names. ``test`` and ``ground_truth`` may be absent, and with
``category=""`` the root itself is the category. Instead of ``train``, the category may be a folder
of normal images, and the root may name several folders, files and patterns, see `flat.source`.
"""

from __future__ import annotations

from pathlib import Path

from flowad_jax.data import flat, layout, roots
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import FileSource
from flowad_jax.data.images import WHITE
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError, UserError

CARD = DatasetCard(
    title="Your own images",
    licence="yours",
    metric="image AUROC; with masks also pixel AUROC and AUPRO",
    source="your own images",
    layout="{root}/{category}/train/good/*, or normal images in {root} itself, and, if there are "
    "any, test/good/*, test/{kind}/* and ground_truth/{kind}/{stem}_mask.*",
)


def categories(root: str | Path) -> list[str]:
    """Folders of the root that have a ``train`` folder; ``[""]`` if the root is a category."""
    return [""] if roots.is_several(root) else layout.category_names(root)


def build(
    root: str | Path,
    category: str,
    split: str,
    *,
    masks: str = "auto",
    mask_threshold: int = 0,
    white: int = WHITE,
    normal: str = GOOD,
) -> FileSource:
    """Lists one split of one category.

    Args:
      root: folder of the data set; or several folders, files and patterns of normal images.
      category: folder below it, or ``""`` for the root itself.
      split: ``"train"`` or ``"test"``, which may be empty.
      masks: ``"auto"`` uses masks if there are any, then every anomalous image needs one;
        ``"require"`` insists on them; ``"none"`` ignores them.
      mask_threshold: grey value, of 255, above which a mask pixel is a defect.
      white: value of a 16-bit image that is shown as white, e.g. 4095 for a 12-bit camera.
      normal: name of the folders of normal images; their kind is ``"good"`` whatever it is.

    Raises:
      UserError: a folder is missing or holds no images, images lie where they may be anything, or
        a mask is missing or of another size.
    """
    if roots.is_several(root):
        if category:
            raise UserError(f"data.category={category!r}: data.root '{root}' has none, use ''")
        return flat.source(root, split, white)
    folder = layout.category_folder(root, category)
    images, names = layout.images(folder), {sub.name for sub in layout.subfolders(folder)}
    if not names & {"train", "test"} and (images or names):
        return flat.source(folder, split, white)
    if images:
        raise LayoutError(
            f"'{folder}' holds images ('{images[0].name}') beside train/ or test/: move them "
            f"to train/{normal} if they are normal, else to test/KIND or elsewhere"
        )
    if split == "test" and layout.has_no_test(folder):
        return FileSource([], white=white)
    return layout.folder_per_kind(
        folder,
        split,
        masks,
        mask_threshold=mask_threshold,
        white=white,
        normal=normal,
    )
