"""A split that consists of image files, with mask files of its anomalous images or without."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from flowad_jax.canvas import Canvas, CanvasLike
from flowad_jax.data import fingerprint
from flowad_jax.data.images import WHITE, image_size, read_image, read_resized
from flowad_jax.data.masks import TURNED, MaskReading, inspect_mask, orientation, unturned
from flowad_jax.data.record import GOOD, UNKNOWN, Record
from flowad_jax.data.transforms import resize_mask
from flowad_jax.errors import UserError
from flowad_jax.lookup import check_choice

MASK_RULES = ("auto", "require", "none")


@dataclass(frozen=True)
class Entry:
    """Where one record lies.

    Attributes:
      path: the image.
      kind: ``"good"``, the name of a defect, or ``"unknown"``.
      masks: files whose union is the mask; ignored unless the image is anomalous.
      sample: what was photographed, where several images show it.
      time: when, in the form of ISO 8601.
    """

    path: Path
    kind: str
    masks: tuple[Path, ...] = ()
    sample: str = ""
    time: str = ""

    @property
    def label(self) -> int:
        """0 for normal, 1 for anomalous, -1 for unknown."""
        return {GOOD: 0, UNKNOWN: -1}.get(self.kind, 1)


class FileSource:
    """A ``record.Source`` of image files."""

    def __init__(
        self,
        entries: Sequence[Entry],
        masks: str = "auto",
        *,
        mask_threshold: int = 0,
        white: int = WHITE,
        folders: Iterable[Path] | None = None,
    ) -> None:
        """Keeps the entries in the given order.

        Args:
          entries: files.
          masks: ``"auto"`` uses masks if there are any, then every anomalous image needs one;
            ``"require"`` insists on them; ``"none"`` ignores them.
          mask_threshold: grey value, of 255, above which a mask pixel is a defect.
          white: value of a 16-bit image that is shown as white.
          folders: those of which every image is meant to be taken, so that skipped files are
            worth a word; by default the folders of the entries and their masks.

        Raises:
          UserError: an anomalous image lacks a mask, the header of a mask or its image is
            unreadable, or their sizes differ.
        """
        self._entries = _apply_mask_rule(entries, masks)
        self._mask_threshold = mask_threshold
        self.white = white
        if folders is None:
            folders = {p.parent for e in self._entries for p in (e.path, *e.masks)}
        self.folders = sorted(folders)
        self.kinds = [entry.kind for entry in self._entries]
        self.paths = [str(entry.path) for entry in self._entries]
        self.labels = np.array([entry.label for entry in self._entries], np.int32)
        self.samples = [entry.sample for entry in self._entries]
        self.has_masks = any(entry.masks for entry in self._entries)
        for entry in self._entries:
            if entry.masks:
                _compare_headers(entry)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._entries)

    def __getitem__(self, index: int) -> Record:
        """Decodes one image and its mask; an unreadable file, or another size, is a UserError."""
        entry = self._entries[index]
        image = read_image(entry.path, self.white)
        mask = self._mask(entry, image.shape[:2])
        return Record(image, mask, entry.label, entry.kind, self.paths[index])

    @property
    def times(self) -> list[datetime] | None:
        """When the images were taken; None unless that is known of all, in one form."""
        try:
            found = [datetime.fromisoformat(entry.time) for entry in self._entries]
        except ValueError:
            return None
        return found if len({time.tzinfo is None for time in found}) == 1 else None

    def resized(self, index: int, size: CanvasLike, filter: str) -> Record:
        """Decodes one record with image and mask on a canvas, see `resized_record`."""
        entry = self._entries[index]
        image, shape = read_resized(entry.path, size, filter, self.white)
        canvas = Canvas.of(size)
        empty = np.zeros(canvas.shape, bool)
        mask = resize_mask(self._mask(entry, shape), canvas) if entry.masks else empty
        return Record(image, mask, entry.label, entry.kind, self.paths[index])

    def shape(self, index: int) -> tuple[int, int]:
        """Returns the (H, W) of a record's image."""
        return image_size(self._entries[index].path)

    def mask(self, index: int) -> np.ndarray:
        """Reads the mask (H, W) bool of a record, and of its image only the size."""
        entry = self._entries[index]
        return self._mask(entry, image_size(entry.path))

    def part_masks(self, index: int) -> dict[Path, np.ndarray]:
        """Reads the mask files of a record, each by itself as (H, W) bool."""
        entry = self._entries[index]
        size = image_size(entry.path) if entry.masks else ()
        return {file: self._part(entry, file, size) for file in entry.masks}

    def inspect_masks(self, index: int) -> list[tuple[str, MaskReading]]:
        """Reads the mask files of one record, with what is remarkable about them."""
        entry, found = self._entries[index], []
        for file in entry.masks:
            reading = inspect_mask(file, self._mask_threshold)
            turn = orientation(entry.path)
            height, width = reading.mask.shape
            # Turned by a quarter, a mask fits in one way only, unless it is square.
            if turn > 1 and (turn < 5 or height == width) and orientation(file) == 1:
                reading = reading._replace(remarks=(*reading.remarks, TURNED))
            found.append((str(file), reading))
        return found

    def fingerprint(self, index: int) -> str:
        """The checksum of an image file."""
        return fingerprint.of_file(self._entries[index].path)

    def _mask(self, entry: Entry, size: tuple[int, ...]) -> np.ndarray:
        """The union of the masks of an image of a size (H, W)."""
        mask = np.zeros(size, bool)
        for file in entry.masks:
            mask |= self._part(entry, file, size)
        return mask

    def _part(self, entry: Entry, file: Path, size: tuple[int, ...]) -> np.ndarray:
        """One of the masks of an image of a size (H, W)."""
        part = inspect_mask(file, self._mask_threshold).mask
        if part.shape != size and orientation(file) == 1:
            part = unturned(part, entry.path)  # drawn on the image as it is stored
        if part.shape != size:
            raise _sizes_differ(entry.path, size, file, part.shape)
        return part


def _apply_mask_rule(entries: Sequence[Entry], rule: str) -> list[Entry]:
    """Leaves masks to all anomalous images or to none."""
    check_choice("data.options.masks", rule, MASK_RULES)
    masked = any(entry.masks for entry in entries if entry.label == 1)
    wanted = rule == "require" or (rule == "auto" and masked)
    for entry in entries:
        if wanted and entry.label == 1 and not entry.masks:
            fix = "add it, or set data.options.masks to 'none'"
            raise UserError(f"anomalous image '{entry.path}' has no mask: {fix}")
    return [e if wanted and e.label == 1 else replace(e, masks=()) for e in entries]


def _compare_headers(entry: Entry) -> None:
    """Finds a mask of another size before the training starts, not at its end."""
    size = image_size(entry.path)
    for file in entry.masks:
        mask_size = image_size(file)
        # A mask may be drawn on the image as it is stored; decoding compares the sides exactly.
        if sorted(size) != sorted(mask_size):
            raise _sizes_differ(entry.path, size, file, mask_size)


def _sizes_differ(
    image: Path, size: Sequence[int], mask: Path, mask_size: Sequence[int]
) -> UserError:
    return UserError(
        f"mask '{mask}' is {mask_size[1]} x {mask_size[0]} but its image '{image}' is "
        f"{size[1]} x {size[0]}: make them equal, or set data.options.masks to 'none'"
    )
