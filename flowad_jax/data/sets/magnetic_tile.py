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
from typing import Annotated

from flowad_jax.data import layout
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError
from flowad_jax.schema import within

CARD = DatasetCard(
    title="Magnetic Tile Defects",
    licence="none in writing; the authors ask to be cited",
    metric="image AUROC in papers on anomalies; the authors segment with supervision",
    source="https://github.com/abin24/Magnetic-tile-defect-datasets.",
    layout="{root}/MT_Free/Imgs/*.jpg and MT_{Blowhole,Break,Crack,Fray,Uneven}/Imgs/{*.jpg,*.png}",
    categories=("",),
)
_FREE = "MT_Free"


def build(
    root: str | Path,
    category: str,
    split: str,
    *,
    masks: str = "auto",
    mask_threshold: int = 127,
    test_every: Annotated[int, within(2)] = 5,
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
    path, free = _find(root)
    if split == "train":
        entries = [Entry(file, GOOD) for i, file in enumerate(free) if i % test_every]
    else:
        entries = [Entry(file, GOOD) for file in free[::test_every]]
        for folder in layout.subfolders(path):
            if folder.name.startswith("MT_") and folder.name != _FREE:
                entries += [_defect(file, folder.name) for file in _photographs(folder)]
    if not entries:
        raise LayoutError(f"'{path / _FREE}' has too few images for a {split} split")
    entries.sort(key=lambda entry: entry.path)
    return FileSource(entries, masks, mask_threshold=mask_threshold)


def categories(root: str | Path) -> list[str]:
    """The one category, ``""``, if the set is there."""
    _find(root)
    return [""]


def _find(root: str | Path) -> tuple[Path, list[Path]]:
    """Returns the root and the images without defect."""
    path = layout.find_root(root)
    if not (free := _photographs(path / _FREE)):
        where = path / _FREE / "Imgs"
        raise LayoutError(f"no photographs '{where}/*.jpg': data.root must hold MT_*")
    return path, free


def _photographs(folder: Path) -> list[Path]:
    return layout.images(folder / "Imgs", (".jpg", ".jpeg"))


def _defect(file: Path, kind: str) -> Entry:
    mask = file.with_suffix(".png")
    return Entry(file, kind, (mask,) if mask.is_file() else ())
