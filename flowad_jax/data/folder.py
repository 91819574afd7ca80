"""A folder per category in the shape of MVTec AD, with masks or without.

    {root}/{category}/train/good/*            normal images to learn from
    {root}/{category}/test/good/*             normal images
    {root}/{category}/test/{kind}/*           anomalous images, one folder per kind of defect
    {root}/{category}/ground_truth/{kind}/*   masks: {stem}_mask.png or {stem}.png

Any format of docs/images.md is accepted, also mixed, and for masks too. Files and folders are
taken in the order of their names. ``ground_truth`` may be absent, and with ``category=""`` the
root itself is the category.
"""

from __future__ import annotations

from pathlib import Path

from flowad_jax.data import _files
from flowad_jax.data._files import Entry, FileSource
from flowad_jax.data.about import About
from flowad_jax.data.images import WHITE
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError, UserError

ABOUT = About(
    title="Your own images",
    licence="yours",
    metric="image AUROC; with masks also pixel AUROC and AUPRO",
    source="your own images",
    layout="{root}/{category}/train/good/*, test/good/*, test/{kind}/* and, if there are masks, "
    "ground_truth/{kind}/{stem}_mask.*",
)


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
      root: folder of the data set.
      category: folder below it, or ``""`` for the root itself.
      split: ``"train"`` or ``"test"``.
      masks: ``"auto"`` uses masks if there are any, then every anomalous image needs one;
        ``"require"`` insists on them; ``"none"`` ignores them.
      mask_threshold: grey value, of 255, above which a mask pixel is a defect.
      white: value of a 16-bit image that is shown as white, e.g. 4095 for a 12-bit camera.
      normal: name of the folders of normal images; their kind is ``"good"`` whatever it is.

    Raises:
      UserError: a folder is missing or holds no images, or a mask is missing or of another size.
    """
    _files.check_choice("split", split, _files.SPLITS)
    folder = category_folder(_files.check_root(root), category)
    entries = _train(folder, normal) if split == "train" else _test(folder, masks, normal)
    with_masks = split == "test" and masks != "none"
    truth = _files.subfolders(folder / "ground_truth") if with_masks else []
    kinds = _files.subfolders(folder / "test") if split == "test" else [folder / "train" / normal]
    listed = [*kinds, *truth]
    return FileSource(entries, mask_threshold=mask_threshold, white=white, folders=listed)


def categories(root: str | Path) -> list[str]:
    """Folders of the root that have a ``train`` folder; ``[""]`` if the root itself has one."""
    path = _files.check_root(root)
    if (path / "train").is_dir():
        return [""]
    return [folder.name for folder in _files.subfolders(path) if (folder / "train").is_dir()]


def category_folder(root: Path, category: str) -> Path:
    """Returns the folder of a category, or a UserError that lists those there are."""
    folder = root / category
    if not folder.is_dir():
        if (root / "train").is_dir():
            raise UserError(f"data.category={category!r}: '{root}' holds train/ itself, use ''")
        raise LayoutError(f"'{root}' has no category {category!r}: {_files.hint(category, root)}")
    if not category and not (root / "train").is_dir() and categories(root):
        raise UserError(f"data.category is not set: choose one of {', '.join(categories(root))}")
    return folder


def _train(folder: Path, normal: str) -> list[Entry]:
    good = folder / "train" / normal
    files = _files.images(good)
    if not files:
        raise LayoutError(f"no training images in '{good}': put the normal images there")
    return [Entry(file, GOOD) for file in files]


def _test(folder: Path, rule: str, normal: str) -> list[Entry]:
    kinds = _files.subfolders(folder / "test")
    entries = [
        Entry(file, GOOD if kind.name == normal else kind.name)
        for kind in kinds
        for file in _files.images(kind)
    ]
    if not entries:
        where = folder / "test"
        raise LayoutError(f"no test images in '{where}': put some into test/{normal} and test/KIND")
    truth = folder / "ground_truth"
    by_stem = {kind.name: _stems(truth / kind.name) for kind in kinds}
    found = [_mask(by_stem[entry.path.parent.name], entry.path.stem) for entry in entries]
    strays = [file for kind in _files.subfolders(truth) for file in _files.images(kind)]
    # Masks that match nothing are a naming mistake, not a set without masks.
    rule = "require" if rule == "auto" and strays else rule
    return _files.attach_masks(entries, found, rule)


def _stems(folder: Path) -> dict[str, Path]:
    return {file.stem: file for file in _files.images(folder)}


def _mask(by_stem: dict[str, Path], stem: str) -> Path | None:
    return by_stem.get(f"{stem}_mask", by_stem.get(stem))
