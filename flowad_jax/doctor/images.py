"""Every image of a category with its mask, decoded as training and evaluation do it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from flowad_jax.data import layout
from flowad_jax.data.decoded_image import is_deep
from flowad_jax.data.image_file import open_image
from flowad_jax.data.masks import read_mask
from flowad_jax.data.record import Record, Source
from flowad_jax.errors import UserError

_THREADS = 4
_MASK_NAMES = ("{}_mask", "{}_label", "{}")
_MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "RGBA": "RGB with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "F": "floating point",
}


@dataclass(frozen=True)
class ExaminedImage:
    """One image and what is known of it.

    Attributes:
      split: ``"train"`` or ``"test"``.
      path: the file, or a made-up name.
      label: 0 for normal, 1 for anomalous, -1 for unknown.
      size: (width, height), or None if the image cannot be read.
      mode: what its pixels are, such as ``"grey"``; empty if it is no file.
      checksum: of the decoded pixels.
      mask: the mask's file, if any.
      mask_size: (width, height), or None.
      is_marked: whether the mask has a defect pixel.
      faults: why image or mask cannot be read.
    """

    split: str
    path: str
    label: int
    size: tuple[int, int] | None = None
    mode: str = ""
    checksum: bytes = b""
    mask: str | None = None
    mask_size: tuple[int, int] | None = None
    is_marked: bool = False
    faults: tuple[UserError, ...] = ()


def examine(
    split: str, source: Source, masked: Source | None, masks: bool, threshold: int
) -> Iterator[ExaminedImage]:
    """Decodes all images of a split in order, with a progress bar.

    Args:
      split: ``"train"`` or ``"test"``.
      source: its images, listed with their masks ignored, as those may be what is wrong.
      masked: the same with masks as training lists it, or None where that is refused.
      masks: whether mask files matter.
      threshold: grey value above which a mask pixel is a defect, where ``masked`` is None.
    """
    find_mask = _mask_finder(source)

    def look(index: int) -> ExaminedImage:
        path, label = source.paths[index], int(source.labels[index])
        needs_mask = masks and label == 1
        faults: list[UserError] = []
        found: dict[str, Any] = {}
        listed = masked if needs_mask and masked is not None else source
        record = _decode(listed, index, faults)
        if needs_mask and masked is None:
            if file := find_mask(Path(path)):
                found["mask"] = str(file)
                try:
                    found |= _describe_mask(read_mask(file, threshold))
                except UserError as error:
                    faults.append(error)
        elif needs_mask and record is None:
            unreadable: list[UserError] = []
            record = _decode(source, index, unreadable)  # is it the image or its mask?
            found["mask"], faults = path, unreadable or faults
        elif record is not None and needs_mask and listed.has_masks:
            found = {"mask": path} | _describe_mask(record.mask)
        if record is not None:
            pixels = record.image
            digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
            found |= {"size": pixels.shape[1::-1], "checksum": digest, "mode": _mode(path)}
        return ExaminedImage(split, path, label, **found, faults=tuple(faults))

    bar = tqdm(total=len(source), desc=f"read {split}", unit="img", disable=None, leave=False)
    with bar, ThreadPoolExecutor(_THREADS) as pool:
        for image in pool.map(look, range(len(source))):
            bar.update()
            yield image


def _decode(source: Source, index: int, faults: list[UserError]) -> Record | None:
    try:
        return source[index]
    except UserError as error:
        faults.append(error)
    except Exception as error:  # a source of someone else's, or an option that cannot work
        reason = str(error) or type(error).__name__
        faults.append(
            UserError(f"cannot read '{source.paths[index]}': {reason}; replace or remove it")
        )
    return None


def _mask_finder(source: Source) -> Callable[[Path], Path | None]:
    """Returns what looks for the mask of an image wherever one of the layouts keeps masks."""
    images = set(source.paths)

    @functools.cache
    def other_files(folder: Path) -> dict[str, Path]:
        return {file.stem: file for file in layout.images(folder) if str(file) not in images}

    def find(image: Path) -> Path | None:
        category, kind = image.parent.parent.parent, image.parent.name
        places = (category / "ground_truth" / kind, category / "Masks" / kind)
        for folder in (*places, image.parent / "Label", image.parent):
            names = (name.format(image.stem) for name in _MASK_NAMES)
            if mask := layout.first(other_files(folder), names):
                return mask[0]
        return None

    return find


def _describe_mask(mask: np.ndarray) -> dict[str, Any]:
    return {"mask_size": mask.shape[::-1], "is_marked": bool(mask.any())}


def _mode(path: str) -> str:
    """What the pixels of a readable file are, in words."""
    if not Path(path).is_file():
        return ""
    with open_image(path) as file:
        if is_deep(file) and file.mode != "F":
            return "16 bit" if file.mode.startswith("I") else f"16 bit {file.mode}"
        return _MODES.get(file.mode, file.mode)
