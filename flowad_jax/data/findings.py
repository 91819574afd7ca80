"""What is found in the files of a data set that its owner should know, in lines of text.

Nothing here stops a training. Each line ends with what to do, behind a colon.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from flowad_jax.canvas import Canvas, CanvasLike
from flowad_jax.data.layout import listing, subfolders
from flowad_jax.data.masks import MaskReading, Remark
from flowad_jax.data.record import Source
from flowad_jax.data.transforms import nearest_pixel
from flowad_jax.errors import one_line

NamedRemarks = tuple[str, tuple[Remark, ...]]  # of a mask file

_THREADS = 4
_SPLITS = ("train", "test", "ground_truth")  # whose folders hold one for each kind
_LARGER = "raise data.image_size, or measure with eval.mask_size='native'"


class _Defect(NamedTuple):
    """The mask of an anomalous image: so many regions, of which the resize loses some."""

    path: str
    regions: int
    lost: int
    is_read: bool


def findings(source: Source, size: CanvasLike) -> list[str]:
    """Looks at all masks of a source, and at what lies beside its images.

    Args:
      source: the records. One of image files knows the ``folders`` that it lists and inspects its
        mask files; of others the masks count as they are.
      size: the canvas, on which the network's maps are compared with masks.

    Raises:
      UserError: a mask cannot be read.
    """
    lines, canvas = _passed_over(getattr(source, "folders", ())), Canvas.of(size)
    anomalous = np.flatnonzero(np.asarray(source.labels) == 1).tolist()
    with ThreadPoolExecutor(_THREADS) as pool:
        rows = anomalous if source.has_masks else []
        inspected = list(pool.map(lambda index: _inspect(source, index, canvas), rows))
    masks = [mask for own, _ in inspected for mask in own]
    by_remark: dict[Remark, list[str]] = {}
    for name, remarks in masks:
        for remark in remarks:
            by_remark.setdefault(remark, []).append(name)
    lines += [
        f"{len(names)} of {len(masks)} masks {remark.what} ({examples(names)}): {remark.remedy}"
        for remark, names in by_remark.items()
    ]
    # Names of files come from strangers.
    return [one_line(line) for line in lines + _losses([defect for _, defect in inspected], canvas)]


def examples(names: Iterable[str], most: int = 2) -> str:
    """The first few names of many: ``"a, b and 7 more"``."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _passed_over(folders: Iterable[Path]) -> list[str]:
    """Skipped files, and images one floor too deep or too high or in a folder beside."""
    known = set(folders)
    skipped = [str(path) for folder in folders for path in listing(folder)[1]]
    splits = {folder.parent for folder in known if folder.parent.name in _SPLITS} - known
    below = {sub for folder in known | splits for sub in subfolders(folder)} - known
    nested = [str(path) for folder in sorted(below | splits) for path in listing(folder)[0]]
    lines = []
    if skipped:
        lines.append(
            f"skipped files beside images or masks: {len(skipped)} ({examples(skipped)}): convert "
            "them to PNG, repair their links, or move them elsewhere"
        )
    if nested:
        lines.append(
            f"images in folders that are not looked into: {len(nested)} ({examples(nested)}): move "
            "them to the others, or list them in a table and set data.name=csv"
        )
    return lines


def _inspect(source: Source, index: int, canvas: Canvas) -> tuple[list[NamedRemarks], _Defect]:
    path = source.paths[index]
    readings: Sequence[tuple[str, MaskReading]]
    if hasattr(source, "inspect_masks"):
        readings = source.inspect_masks(index)
    else:
        readings = [(path, MaskReading(source[index].mask))]
    # Masks that do not fit each other are refused where the record is read.
    is_read = len({reading.mask.shape for _, reading in readings}) == 1
    union = [reading.mask for _, reading in readings] if is_read else [np.zeros((1, 1), bool)]
    mask = np.logical_or.reduce(union)
    numbers, regions = ndimage.label(mask, np.ones((3, 3)))
    left = len(np.setdiff1d(nearest_pixel(numbers, canvas), 0))
    remarks = [(name, reading.remarks) for name, reading in readings]
    return remarks, _Defect(path, regions, regions - left, is_read)


def _losses(defects: Sequence[_Defect], canvas: Canvas) -> list[str]:
    """Masks that mark nothing, and defects of which the nearest-pixel resize keeps no pixel."""
    empty = [defect.path for defect in defects if defect.is_read and not defect.regions]
    gone = [defect.path for defect in defects if 0 < defect.regions == defect.lost]
    partly = [defect.path for defect in defects if defect.lost]
    lost, regions = (sum(getattr(d, name) for d in defects) for name in ("lost", "regions"))
    lines = []
    if 0 < len(empty) < len(defects):  # else all pixel metrics are undefined, which says the same
        lines.append(
            f"{len(empty)} of {len(defects)} anomalous images have a mask that marks nothing "
            f"({examples(empty)}): correct the masks, as the images count as anomalous"
        )
    if gone:
        lines.append(
            f"at {canvas} px nothing is left of the masks of {len(gone)} of {len(defects)} "
            f"anomalous images ({examples(gone)}): {_LARGER}"
        )
    if partly:
        lines.append(
            f"at {canvas} px nothing is left of {lost} of {regions} separate defect regions "
            f"({examples(partly)}): {_LARGER}"
        )
    return lines
