"""Magnetic tile defects: 1,344 grey photographs of five kinds of defect and of none.

Y. Huang, C. Qiu, K. Yuan, "Surface defect saliency of magnetic tile", The Visual Computer, 2020.
Published for research with a request to cite, without a licence text.

    {root}/MT_Free/Imgs/*.jpg     952 images without defect
    {root}/MT_{Defect}/Imgs/*.jpg 392 images; the mask of each is the .png of the same stem

The set has no official split and no categories. Here every fifth image of ``MT_Free``, in the
order of their names, is a test image (191 of 952), which is as many as the random fifth of the
literature (DifferNet, CS-Flow, MSFlow). Four masks of ``MT_Uneven`` are black; their images count
as anomalous and have no anomalous pixel.
"""

from __future__ import annotations

from pathlib import Path

from flowad_jax.data import _files
from flowad_jax.data._files import Entry, FileSource
from flowad_jax.data.about import About
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError, UserError

ABOUT = About(
    title="Magnetic Tile Defects",
    licence="none in writing; the authors ask to be cited",
    metric="image AUROC in papers on anomalies; the authors segment with supervision",
    source="https://github.com/abin24/Magnetic-tile-defect-datasets.",
    layout="{root}/MT_Free/Imgs/*.jpg and MT_{Blowhole,Break,Crack,Fray,Uneven}/Imgs/{*.jpg,*.png}",
)
_FREE = "MT_Free"
_PHOTOGRAPHS = (".jpg", ".jpeg")


def build(
    root: str | Path,
    category: str,
    split: str,
    *,
    masks: str = "auto",
    mask_threshold: int = 127,
    test_every: int = 5,
) -> FileSource:
    """Lists one split.

    Args:
      root: folder that holds the ``MT_*`` folders.
      category: must be ``""``.
      split: ``"train"`` or ``"test"``.
      masks: as in ``folder.build``.
      mask_threshold: the masks hold a few grey values, so the threshold lies in the middle.
      test_every: one in so many defect-free images is tested.

    Raises:
      UserError: a folder or the images in it are missing, or a mask is missing or of another size.
    """
    _files.check_choice("split", split, _files.SPLITS)
    if category:
        raise UserError(f"data.category={category!r}: magnetic_tile has no categories, use ''")
    if test_every < 2:
        raise UserError(f"data.test_every={test_every} leaves nothing to train on: use 2 or more")
    path = _root(root)
    train, test = _split_free(path, test_every)
    entries = train if split == "train" else test + _defects(path, masks)
    if not entries:
        raise LayoutError(f"'{path / _FREE}' has too few images for a {split} split")
    return FileSource(sorted(entries, key=lambda entry: entry.path), mask_threshold=mask_threshold)


def categories(root: str | Path) -> list[str]:
    """The one category, ``""``, if the set is there."""
    _root(root)
    return [""]


def _root(root: str | Path) -> Path:
    path = _files.check_root(root)
    if not _files.images(path / _FREE / "Imgs", _PHOTOGRAPHS):
        where = path / _FREE / "Imgs"
        raise LayoutError(f"no photographs '{where}/*.jpg': data.root must hold MT_*")
    return path


def _split_free(root: Path, test_every: int) -> tuple[list[Entry], list[Entry]]:
    files = _files.images(root / _FREE / "Imgs", _PHOTOGRAPHS)
    entries = [Entry(file, GOOD) for file in files]
    test = entries[::test_every]
    return [entry for i, entry in enumerate(entries) if i % test_every], test


def _defects(root: Path, rule: str) -> list[Entry]:
    folders = [f for f in _files.subfolders(root) if f.name.startswith("MT_") and f.name != _FREE]
    entries = [
        Entry(file, folder.name)
        for folder in folders
        for file in _files.images(folder / "Imgs", _PHOTOGRAPHS)
    ]
    masks = [entry.path.with_suffix(".png") for entry in entries]
    return _files.attach_masks(entries, [m if m.is_file() else None for m in masks], rule)
