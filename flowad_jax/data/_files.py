"""A split that consists of image files, and the checks that all such layouts share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowad_jax.data import fingerprint
from flowad_jax.data._image_file import SUFFIXES
from flowad_jax.data.images import WHITE, image_size, read_image, read_resized
from flowad_jax.data.masks import TURNED, MaskReading, inspect_mask, orientation, unturned
from flowad_jax.data.record import GOOD, UNKNOWN, Record, count
from flowad_jax.data.transforms import resize_mask
from flowad_jax.errors import LayoutError, UserError
from flowad_jax.lookup import nearest

SPLITS = ("train", "test")
MASK_RULES = ("auto", "require", "none")
_LABELS = {GOOD: 0, UNKNOWN: -1}  # of other kinds, which are anomalous, it is 1
_BOOKKEEPING = ("thumbs.db", "desktop.ini")  # which Windows puts into folders of images
_LISTED = 20  # names in an error message, so that it stays one readable line


@dataclass(frozen=True)
class Entry:
    """Where one record lies; there are no masks of good images, nor where they are unknown.

    Attributes:
      path: the image.
      kind: ``"good"``, the name of a defect, or ``"unknown"``.
      masks: files whose union is the mask; most sets have one for each anomalous image.
    """

    path: Path
    kind: str
    masks: tuple[Path, ...] = ()


class FileSource:
    """A ``record.Source`` of image files, with mask files of the anomalous images or without."""

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        mask_threshold: int = 0,
        white: int = WHITE,
        folders: Iterable[Path] | None = None,
    ) -> None:
        """Keeps the entries in the given order and compares mask sizes from the file headers.

        Args:
          entries: files; those of kind ``"good"`` are the normal images, of those of kind
            ``"unknown"`` nobody says whether they are.
          mask_threshold: grey value, of 255, above which a mask pixel is a defect.
          white: value of a 16-bit image that is shown as white.
          folders: those of which every image is meant to be taken, so that skipped files are
            worth a word; by default the folders of the entries and their masks.

        Raises:
          UserError: the header of a mask or its image is unreadable, or their sizes differ.
        """
        self._entries = list(entries)
        self._mask_threshold = mask_threshold
        self.white = white
        if folders is None:
            folders = {p.parent for e in self._entries for p in (e.path, *e.masks)}
        self.folders = sorted(folders)
        self.kinds = [entry.kind for entry in self._entries]
        self.paths = [str(entry.path) for entry in self._entries]
        self.labels = np.array([_LABELS.get(kind, 1) for kind in self.kinds], np.int32)
        self.has_masks = any(entry.masks for entry in self._entries)
        for entry in self._entries:
            if entry.masks:
                _compare_headers(entry)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._entries)

    def __getitem__(self, index: int) -> Record:
        """Decodes one image and its mask.

        Raises:
          UserError: a file is unreadable, or the sizes of image and mask differ.
        """
        entry = self._entries[index]
        image = read_image(entry.path, self.white)
        mask = self._mask(entry, image.shape[:2])
        return Record(image, mask, int(self.labels[index]), entry.kind, self.paths[index])

    def resized(self, index: int, size: int, filter: str) -> Record:
        """Decodes one record with image and mask of side S, see `resized_record`.

        Raises:
          UserError: as ``self[index]``.
        """
        entry = self._entries[index]
        image, shape = read_resized(entry.path, size, filter, self.white)
        mask = self._mask(entry, shape) if entry.masks else np.zeros((1, 1), bool)
        mask = resize_mask(mask, size)
        return Record(image, mask, int(self.labels[index]), entry.kind, self.paths[index])

    def mask(self, index: int) -> np.ndarray:
        """Reads the mask (H, W) bool of a record, and of its image only the size.

        Raises:
          UserError: a file is unreadable, or the sizes of image and mask differ.
        """
        entry = self._entries[index]
        return self._mask(entry, image_size(entry.path))

    def inspect_masks(self, index: int) -> list[tuple[str, MaskReading]]:
        """Reads the mask files of one record, with what is remarkable about them.

        Raises:
          UserError: a file is unreadable.
        """
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

    def describe(self) -> dict[str, Any]:
        """Counts, see ``record.count``."""
        return count(self)

    def _mask(self, entry: Entry, size: tuple[int, ...]) -> np.ndarray:
        """The union of the masks of an image of a size (H, W)."""
        mask = np.zeros(size, bool)
        for file in entry.masks:
            part = inspect_mask(file, self._mask_threshold).mask
            if part.shape != size and orientation(file) == 1:
                part = unturned(part, entry.path)  # drawn on the image as it is stored
            if part.shape != size:
                raise _sizes_differ(entry.path, size[::-1], file, part.shape[::-1])
            mask |= part
        return mask


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raises a UserError if the value of a key is not one of its choices."""
    if value not in choices:
        raise UserError(f"{key}={value!r} is unknown: {nearest(str(value), choices)}")


def check_root(root: str | Path | None) -> Path:
    """Returns the data root as a path.

    Raises:
      UserError: it is not set or no folder; the message names the nearest folder beside it.
    """
    if not root:
        raise UserError("data.root is not set: give it the folder that holds the images")
    path = Path(root).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"data.root '{path}' is a file, not a folder")
    parent = next((p for p in path.parents if p.is_dir()), Path())
    missing = path.relative_to(parent).parts[0] if parent in path.parents else path.name
    where = f"'{parent}' has no '{missing}'"
    raise LayoutError(f"data.root '{path}' does not exist: {where}: {hint(missing, parent)}")


def hint(missing: str, parent: Path) -> str:
    """Returns the subfolders that do exist, with the nearest name to a missing one."""
    names = [folder.name for folder in subfolders(parent)]
    return holdings(missing, names) if names else "it has no subfolders"


def holdings(missing: str, names: Sequence[str]) -> str:
    """Returns the names that there are, with the nearest to a missing one."""
    close = difflib.get_close_matches(missing, names, n=1)
    guess = f"did you mean '{close[0]}'? " if close else ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{guess}it holds {', '.join(names[:_LISTED])}{more}"


def subfolders(folder: Path) -> list[Path]:
    """Visible folders directly inside a folder, sorted by name; none if it does not exist."""
    return [path for path in _visible(folder) if path.is_dir()]


def images(folder: Path, suffixes: Sequence[str] | None = None) -> list[Path]:
    """The image files of `listing`."""
    return listing(folder, suffixes)[0]


def listing(folder: Path, suffixes: Sequence[str] | None = None) -> tuple[list[Path], list[Path]]:
    """Sorts what lies directly inside a folder; empty lists if the folder does not exist.

    Args:
      folder: where to look; hidden files, such as those of macOS, are passed over.
      suffixes: lower-case extensions to accept; by default those of all formats that are read.

    Returns:
      The image files and the skipped ones, each sorted by name. Skipped are files with other
      extensions, broken links, and pipes, sockets and devices whatever they are called.
    """
    known = SUFFIXES if suffixes is None else suffixes
    others = [path for path in _visible(folder) if not path.is_dir()]
    images = [path for path in others if path.suffix.lower() in known and path.is_file()]
    return images, sorted(set(others) - set(images))


def entries(folder: Path, kind: str) -> list[Entry]:
    """All images directly inside a folder, which are of one kind.

    Raises:
      LayoutError: there are none.
    """
    files = images(folder)
    if not files:
        raise LayoutError(f"no images in '{folder}': unpack the set again")
    return [Entry(file, kind) for file in files]


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        return [path for path in found if path.name.lower() not in _BOOKKEEPING]
    except OSError as error:
        raise UserError(f"cannot list '{folder}': {error.strerror}") from error


def attach_masks(
    entries: Sequence[Entry], found: Sequence[Path | Sequence[Path] | None], rule: str
) -> list[Entry]:
    """Joins test images with their masks, all or none of the anomalous ones.

    Args:
      entries: images without masks.
      found: the mask of each, or its parts, or None; those of images that are good or of
        unknown kind are ignored.
      rule: ``"none"`` ignores masks; ``"auto"`` accepts that no image has one; ``"require"``
        does not.

    Raises:
      UserError: an anomalous image lacks a mask that the rule asks for.
    """
    check_choice("data.options.masks", rule, MASK_RULES)
    joined = [
        Entry(e.path, e.kind, () if e.kind in _LABELS else _parts(masks))
        for e, masks in zip(entries, found, strict=True)
    ]
    if rule == "none" or (rule == "auto" and not any(entry.masks for entry in joined)):
        return list(entries)
    for entry in joined:
        if entry.kind not in _LABELS and not entry.masks:
            fix = "add it, or set data.options.masks to 'none'"
            raise UserError(f"anomalous image '{entry.path}' has no mask: {fix}")
    return joined


def _parts(masks: Path | Sequence[Path] | None) -> tuple[Path, ...]:
    if masks is None:
        return ()
    return (masks,) if isinstance(masks, Path) else tuple(masks)


def _compare_headers(entry: Entry) -> None:
    """Finds a mask of another size before the training starts, not at its end."""
    size = image_size(entry.path)[::-1]
    for file in entry.masks:
        mask_size = image_size(file)[::-1]
        # A mask may be drawn on the image as it is stored; decoding compares the sides exactly.
        if sorted(size) != sorted(mask_size):
            raise _sizes_differ(entry.path, size, file, mask_size)


def _sizes_differ(
    image: Path, size: Sequence[int], mask: Path, mask_size: Sequence[int]
) -> UserError:
    return UserError(
        f"mask '{mask}' is {mask_size[0]} x {mask_size[1]} but its image '{image}' is "
        f"{size[0]} x {size[1]}: make them equal, or set data.options.masks to 'none'"
    )
