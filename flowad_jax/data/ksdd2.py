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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from flowad_jax.data import _files
from flowad_jax.data._files import Entry, FileSource
from flowad_jax.data.about import About
from flowad_jax.data.masks import read_mask
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError, UserError

ABOUT = About(
    title="KolektorSDD2",
    licence="CC BY-NC-SA 4.0",
    metric="average precision of image detection",
    source="https://www.vicos.si/resources/kolektorsdd2/",
    layout="{root}/{train,test}/{id}.png and {id}_GT.png beside it",
)
_ARCHIVE = "KolektorSDD2"
_IMAGE = re.compile("[0-9]+")
_THREADS = 4
_log = logging.getLogger("flowad_jax")


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split, in the order of the file names; reads its masks to tell the defects.

    Args:
      root: folder of the data set.
      category: must be ``""``.
      split: ``"train"`` or ``"test"``.
      masks: as in ``folder.build``. Only the masks tell the defects, so that ``"none"`` ignores
        where defects are and not that there are any.
      mask_threshold: grey value, of 255, above which a mask pixel is a defect.

    Raises:
      UserError: there is a category, a folder is missing or holds no images, a mask is missing,
        unreadable or of another size.
    """
    _files.check_choice("split", split, _files.SPLITS)
    if category:
        raise UserError(f"data.category={category!r}: ksdd2 has no categories, use ''")
    pairs = _pairs(_root(root) / split)
    found: list[Path | None] = [mask for _, mask in pairs]
    kinds = _kinds([mask for _, mask in pairs], mask_threshold)
    entries = [Entry(image, kind) for (image, _), kind in zip(pairs, kinds, strict=True)]
    if split == "train":
        entries = _normal(entries)
        found = [None] * len(entries)
    return FileSource(_files.attach_masks(entries, found, masks), mask_threshold=mask_threshold)


def categories(root: str | Path) -> list[str]:
    """The one category, ``""``, if the set is there."""
    _root(root)
    return [""]


def _root(root: str | Path) -> Path:
    path = _files.check_root(root)
    below = path / _ARCHIVE if (path / _ARCHIVE).is_dir() else path
    if not any((below / split).is_dir() for split in _files.SPLITS):
        raise LayoutError(f"'{below}' has neither train nor test: data.root must hold them")
    return below


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Returns every image of a split with its mask."""
    files = _files.images(folder, (".png",))
    images = [file for file in files if _IMAGE.fullmatch(file.stem)]
    if not images:
        raise LayoutError(f"no images '{folder}/[0-9]*.png': unpack the set again")
    others = {file.stem: file for file in files if not _IMAGE.fullmatch(file.stem)}
    pairs = [(image, others.pop(f"{image.stem}_GT", None)) for image in images]
    if others:
        first = next(iter(others.values())).name
        _log.info("passed over %d stray files of '%s', first '%s'", len(others), folder, first)
    return [(image, mask or _missing(image)) for image, mask in pairs]


def _missing(image: Path) -> NoReturn:
    raise LayoutError(f"'{image}' has no mask '{image.stem}_GT.png': unpack the set again")


def _kinds(masks: Sequence[Path], threshold: int) -> list[str]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(functools.partial(_kind, threshold=threshold), masks))


def _kind(mask: Path, threshold: int) -> str:
    return "defect" if read_mask(mask, threshold).any() else GOOD


def _normal(entries: Sequence[Entry]) -> list[Entry]:
    normal = [entry for entry in entries if entry.kind == GOOD]
    dropped = len(entries) - len(normal)
    if not normal:
        where = entries[0].path.parent
        raise LayoutError(f"all {dropped} images of '{where}' have a defect: none to train on")
    if dropped:
        _log.info("left out %d of %d training images, which have a defect", dropped, len(entries))
    return normal
