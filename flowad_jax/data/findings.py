"""What is found in the files of a data set that its owner should know, in lines of text.

Nothing here stops a training. Each line ends with what to do, behind a colon.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from flowad_jax.data._files import listing, subfolders
from flowad_jax.data.masks import MaskReading, Remark
from flowad_jax.data.record import Source
from flowad_jax.data.transforms import resize_mask
from flowad_jax.errors import one_line

_THREADS = 4
_SPLITS = ("train", "test", "ground_truth")  # whose folders hold one for each kind
_LARGER = "raise data.image_size, or measure with eval.mask_size='native'"


class _Defect(NamedTuple):
    """One anomalous image: what its mask files are, and what is left of the mask when resized."""

    path: str
    masks: list[tuple[str, tuple[Remark, ...]]]
    is_empty: bool
    vanishes: bool
    regions: int
    lost: int


def findings(source: Source, size: int) -> list[str]:
    """Looks at all masks of a source, and at what lies beside its images.

    Args:
      source: the records. One of image files knows the ``folders`` that it lists and inspects its
        mask files; of others the masks count as they are.
      size: side of the masks that the network's maps are compared with.

    Raises:
      UserError: a mask cannot be read.
    """
    folders = getattr(source, "folders", ())
    lines = _skipped(folders) + _nested(folders)
    anomalous = np.flatnonzero(np.asarray(source.labels) == 1).tolist()
    with ThreadPoolExecutor(_THREADS) as pool:
        rows = anomalous if source.has_masks else []
        defects = list(pool.map(lambda index: _look(source, index, size), rows))
    # Names of files come from strangers.
    return [one_line(line) for line in lines + _remarks(defects) + _shrunk(defects, size)]


def examples(names: Iterable[str], most: int = 2) -> str:
    """The first few names of many: ``"a, b and 7 more"``."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _skipped(folders: Iterable[Path]) -> list[str]:
    found = [str(path) for folder in folders for path in listing(folder)[1]]
    if not found:
        return []
    return [
        f"skipped files beside images or masks: {len(found)} ({examples(found)}): convert them to "
        "PNG, repair their links, or move them elsewhere"
    ]


def _nested(folders: Iterable[Path]) -> list[str]:
    """Images one floor too deep or too high, or in a folder beside, which a layout passes over."""
    known = set(folders)
    splits = {folder.parent for folder in known if folder.parent.name in _SPLITS} - known
    below = {sub for folder in known | splits for sub in subfolders(folder)} - known
    found = [str(path) for folder in sorted(below | splits) for path in listing(folder)[0]]
    if not found:
        return []
    return [
        f"images in folders that are not looked into: {len(found)} ({examples(found)}): move them "
        "to the others, or list them in a table and set data.name=csv"
    ]


def _look(source: Source, index: int, size: int) -> _Defect:
    path = source.paths[index]
    readings: Sequence[tuple[str, MaskReading]]
    if hasattr(source, "inspect_masks"):
        readings = source.inspect_masks(index)
    else:
        readings = [(path, MaskReading(source[index].mask))]
    shapes = {reading.mask.shape for _, reading in readings}
    # Masks that do not fit each other are refused where the record is read.
    union = [reading.mask for _, reading in readings] if len(shapes) == 1 else []
    mask = np.logical_or.reduce(union) if union else np.zeros((1, 1), bool)
    numbers, regions = ndimage.label(mask, np.ones((3, 3)))
    small = Image.fromarray(numbers).resize((size, size), Image.Resampling.NEAREST)
    left = len(np.unique(np.asarray(small)[resize_mask(mask, size)]))
    return _Defect(
        path,
        [(name, reading.remarks) for name, reading in readings],
        is_empty=bool(union) and not regions,
        vanishes=bool(regions) and not left,
        regions=regions,
        lost=regions - left,
    )


def _remarks(defects: Sequence[_Defect]) -> list[str]:
    masks = list(itertools.chain.from_iterable(defect.masks for defect in defects))
    found: dict[Remark, list[str]] = {}
    for name, remarks in masks:
        for remark in remarks:
            found.setdefault(remark, []).append(name)
    lines = [
        f"{len(names)} of {len(masks)} masks {remark.what} ({examples(names)}): {remark.remedy}"
        for remark, names in found.items()
    ]
    empty = [defect.path for defect in defects if defect.is_empty]
    if 0 < len(empty) < len(defects):  # else all pixel metrics are undefined, which says the same
        lines.append(
            f"{len(empty)} of {len(defects)} anomalous images have a mask that marks nothing "
            f"({examples(empty)}): correct the masks, as the images count as anomalous"
        )
    return lines


def _shrunk(defects: Sequence[_Defect], size: int) -> list[str]:
    """Defects of which the nearest-pixel resize keeps no pixel."""
    lines = []
    if gone := [defect.path for defect in defects if defect.vanishes]:
        lines.append(
            f"at {size} px nothing is left of the masks of {len(gone)} of {len(defects)} anomalous "
            f"images ({examples(gone)}): {_LARGER}"
        )
    if partly := [defect.path for defect in defects if defect.lost]:
        lost, regions = (sum(getattr(d, name) for d in defects) for name in ("lost", "regions"))
        lines.append(
            f"at {size} px nothing is left of {lost} of {regions} separate defect regions "
            f"({examples(partly)}): {_LARGER}"
        )
    return lines
