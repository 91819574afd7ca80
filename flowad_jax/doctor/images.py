"""Every image of a category with its mask, decoded as training and evaluation do it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from flowad_jax.data import _files
from flowad_jax.data._image_file import is_deep, opened
from flowad_jax.data.masks import read_mask
from flowad_jax.data.record import GOOD, UNKNOWN, Record, Source
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
class Seen:
    """One image and what is known of it.

    Attributes:
      split: ``"train"`` or ``"test"``.
      path: the file, or a made-up name.
      kind: ``"good"`` or the kind of defect.
      size: (width, height), or None if the image cannot be read.
      mode: what its pixels are, such as ``"grey"``; empty if it is no file.
      checksum: of the decoded pixels.
      mask: the mask's file, if any.
      mask_size: (width, height), or None.
      marked: whether the mask has a defect pixel.
      faults: why image or mask cannot be read.
    """

    split: str
    path: str
    kind: str
    size: tuple[int, int] | None = None
    mode: str = ""
    checksum: bytes = b""
    mask: Path | None = None
    mask_size: tuple[int, int] | None = None
    marked: bool = False
    faults: tuple[UserError, ...] = ()

    @property
    def good(self) -> bool:
        """Whether it is a normal image."""
        return self.kind == GOOD

    @property
    def anomalous(self) -> bool:
        """Whether it is known to have a defect."""
        return self.kind not in (GOOD, UNKNOWN)


class Reader:
    """Reads the images of one split, and the masks that belong to them."""

    def __init__(
        self, split: str, source: Source, whole: Source | None, masks: bool, threshold: int
    ):
        """Reads nothing yet.

        Args:
          split: ``"train"`` or ``"test"``.
          source: its images, listed with their masks ignored, as those may be what is wrong.
          whole: the same with masks as training lists it, or None where they are wrong.
          masks: whether mask files matter.
          threshold: grey value above which a mask pixel is a defect.
        """
        self._split, self._source, self._whole = split, source, whole
        self._masks, self._threshold = masks, threshold
        self._folders: dict[Path, dict[str, Path]] = {}

    def all(self) -> Iterator[Seen]:
        """Decodes all images in order, with a progress bar."""
        count = len(self._source)
        bar = tqdm(total=count, desc=f"read {self._split}", unit="img", disable=None, leave=False)
        with bar, ThreadPoolExecutor(_THREADS) as pool:
            for seen in pool.map(self._look, range(count)):
                bar.update()
                yield seen

    def _look(self, index: int) -> Seen:
        path, kind = self._source.paths[index], self._source.kinds[index]
        if kind in (GOOD, UNKNOWN) or not self._masks:
            record, faults = self._record(self._source, index)
            found: dict[str, Any] = {}
        elif self._whole is None:
            record, found, faults = self._with_guessed_mask(index)
        else:
            record, found, faults = self._with_listed_mask(self._whole, index)
        if record is not None:
            found |= _facts(path, record)
        return Seen(self._split, path, kind, **found, faults=tuple(faults))

    def _with_listed_mask(
        self, whole: Source, index: int
    ) -> tuple[Record | None, dict[str, Any], list[UserError]]:
        """An image and the mask that the layout knows, whatever and however many its files are."""
        path = Path(whole.paths[index])
        record, faults = self._record(whole, index)
        if record is not None:
            return record, _marks(path, record.mask) if whole.has_masks else {}, faults
        record, unread = self._record(self._source, index)  # is it the image or its mask?
        return record, {"mask": path}, unread or faults

    def _with_guessed_mask(
        self, index: int
    ) -> tuple[Record | None, dict[str, Any], list[UserError]]:
        record, faults = self._record(self._source, index)
        mask = self._mask_file(Path(self._source.paths[index]))
        if mask is None:
            return record, {}, faults
        found, unread = self._mask(mask)
        return record, found, faults + unread

    def _record(self, source: Source, index: int) -> tuple[Record | None, list[UserError]]:
        path = source.paths[index]
        try:
            return source[index], []
        except UserError as error:
            return None, [error]
        except Exception as error:  # a source of someone else's, or an option that cannot work
            reason = str(error) or type(error).__name__
            return None, [UserError(f"cannot read '{path}': {reason}; replace or remove it")]

    def _mask(self, path: Path) -> tuple[dict[str, Any], list[UserError]]:
        try:
            mask = read_mask(path, self._threshold)
        except UserError as error:
            return {"mask": path}, [error]
        return _marks(path, mask), []

    def _mask_file(self, image: Path) -> Path | None:
        """Looks wherever one of the package's layouts keeps masks."""
        category, kind = image.parent.parent.parent, image.parent.name
        places = (category / "ground_truth" / kind, category / "Masks" / kind)
        for folder in (*places, image.parent / "Label", image.parent):
            stems = self._stems(folder)
            found = (stems.get(name.format(image.stem)) for name in _MASK_NAMES)
            if mask := next(filter(None, found), None):
                return mask
        return None

    def _stems(self, folder: Path) -> dict[str, Path]:
        """Files of a folder that are not images of this split, by their names."""
        if folder not in self._folders:
            files = _files.images(folder)
            self._folders[folder] = {f.stem: f for f in files if str(f) not in self._images}
        return self._folders[folder]

    @cached_property
    def _images(self) -> set[str]:
        return set(self._source.paths)


def _facts(path: str, record: Record) -> dict[str, Any]:
    """What the image of a record shows, with or without a file behind it."""
    pixels = record.image
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
    found: dict[str, Any] = {"size": pixels.shape[1::-1], "checksum": digest}
    return found | ({"mode": _mode(path)} if Path(path).is_file() else {})


def _marks(path: Path, mask: np.ndarray) -> dict[str, Any]:
    return {"mask": path, "mask_size": mask.shape[::-1], "marked": bool(mask.any())}


def _mode(path: str) -> str:
    """What the pixels of a readable file are, in words."""
    with opened(path) as file:
        if is_deep(file) and file.mode != "F":
            return "16 bit" if file.mode.startswith("I") else f"16 bit {file.mode}"
        return _MODES.get(file.mode, file.mode)
