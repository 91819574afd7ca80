"""KolektorSDD2: 3,335 colour photographs of one surface, 356 of them with a defect.

J. Bozic, D. Tabernik, D. Skocaj, "Mixed supervision for surface-defect detection: from weakly to
fully supervised learning", Computers in Industry, 2021. Licence CC BY-NC-SA 4.0: not for
commercial use.

    {root}/{train,test}/{id}.png      about 230 x 630
    {root}/{train,test}/{id}_GT.png   its mask, black where there is no defect

The set is meant for learning with defects: 246 of its 2,331 training images have one. A detector
that learns from normal images alone leaves these out. All defects are of the kind ``"defect"``,
and only the pixels of the masks tell them. Copies of the set hold files such as
``10301 (copy).png`` or masks without an image, which are passed over.

The root may be the folder ``KolektorSDD2`` or the one that holds it.
"""

from __future__ import annotations

import functools
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flowad_jax.data import layout
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.masks import read_mask
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError

CARD = DatasetCard(
    title="KolektorSDD2",
    licence="CC BY-NC-SA 4.0",
    metric="average precision of image detection",
    source="https://www.vicos.si/resources/kolektorsdd2/",
    layout="{root}/{train,test}/{id}.png and {id}_GT.png beside it",
    categories=("",),
)
_ARCHIVE = "KolektorSDD2"
_IMAGE = re.compile("[0-9]+")
_THREADS = 4
_log = logging.getLogger("flowad_jax")


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split, in the order of the file names; reads its masks to tell the defects.

    ``masks="none"`` ignores where defects are and not that there are any.

    Raises:
      UserError: a folder is missing or holds no images, a mask is missing, unreadable or of
        another size.
    """
    folder = _root(root) / split
    with ThreadPoolExecutor(_THREADS) as pool:
        read = functools.partial(_entry, threshold=mask_threshold)
        entries = list(pool.map(read, *_pairs(folder)))
    if split == "train":
        normal = [entry for entry in entries if entry.kind == GOOD]
        if dropped := len(entries) - len(normal):
            counts = (dropped, len(entries))
            _log.info("left out %d of %d training images, which have a defect", *counts)
        if not normal:
            raise LayoutError(f"all {dropped} images of '{folder}' have a defect: none to train on")
        entries = normal
    return FileSource(entries, masks, mask_threshold=mask_threshold)


def categories(root: str | Path) -> list[str]:
    """The one category, ``""``, if the set is there."""
    _root(root)
    return [""]


def _root(root: str | Path) -> Path:
    path = layout.find_root(root, _ARCHIVE)
    if not any((path / split).is_dir() for split in CARD.splits):
        raise LayoutError(f"'{path}' has neither train nor test: data.root must hold them")
    return path


def _pairs(folder: Path) -> tuple[list[Path], list[Path]]:
    """Returns every image of a split and its mask."""
    files = layout.images(folder, (".png",))
    images = [file for file in files if _IMAGE.fullmatch(file.stem)]
    if not images:
        raise LayoutError(f"no images '{folder}/[0-9]*.png': {layout.UNPACK}")
    others = {file.stem: file for file in files if not _IMAGE.fullmatch(file.stem)}
    masks = [others.pop(f"{image.stem}_GT", None) for image in images]
    if others:
        first = next(iter(others.values())).name
        _log.info("passed over %d stray files of '%s', first '%s'", len(others), folder, first)
    for image, mask in zip(images, masks, strict=True):
        if mask is None:
            raise LayoutError(f"'{image}' has no mask '{image.stem}_GT.png': {layout.UNPACK}")
    return images, [mask for mask in masks if mask]


def _entry(image: Path, mask: Path, threshold: int) -> Entry:
    return Entry(image, "defect" if read_mask(mask, threshold).any() else GOOD, (mask,))
