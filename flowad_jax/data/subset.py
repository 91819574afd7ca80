"""A part of a source, and the rules by which one is chosen."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from flowad_jax.canvas import Canvas, CanvasLike
from flowad_jax.data.fingerprint import of_record
from flowad_jax.data.images import WHITE
from flowad_jax.data.record import GOOD, Record, Source
from flowad_jax.data.resized import image_shape, resized_record
from flowad_jax.errors import UserError


class Subset:
    """Some records of a source, of which ``indices`` has the numbers; otherwise like the source."""

    def __init__(self, source: Source, indices: np.ndarray):
        self._source = source
        self.indices = indices
        self.labels = source.labels[indices]
        self.kinds = [source.kinds[i] for i in indices]
        self.paths = [source.paths[i] for i in indices]
        self.has_masks = source.has_masks
        self.folders = getattr(source, "folders", ())
        times = getattr(source, "times", None)
        self.times = times and [times[i] for i in indices]
        self.white = getattr(source, "white", WHITE)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self._source[int(self.indices[index])]

    def resized(self, index: int, size: CanvasLike, filter: str) -> Record:
        """Decodes one record with image and mask on a canvas, see `resized_record`."""
        return resized_record(self._source, int(self.indices[index]), size, filter)

    def shape(self, index: int) -> tuple[int, ...]:
        """Returns the (H, W) of a record's image."""
        return image_shape(self._source, int(self.indices[index]))

    def fingerprint(self, index: int) -> str:
        """The checksum of a record, see `fingerprint.of_record`."""
        return of_record(self._source, int(self.indices[index]))


class OnCanvas(Subset):
    """The records of a source as the encoder sees them."""

    def __init__(self, source: Source, canvas: Canvas, filter: str):
        super().__init__(source, np.arange(len(source)))
        self._canvas, self._filter = canvas, filter

    def __getitem__(self, index: int) -> Record:
        return self.resized(index, self._canvas, self._filter)


class NamesOnly:
    """A source of normal images of an earlier time, of which only the names are at hand."""

    has_masks = False

    def __init__(self, names: Iterable[str]):
        self.paths = list(names)
        self.kinds = [GOOD] * len(self.paths)
        self.labels = np.zeros(len(self.paths), np.int32)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        raise UserError(f"'{self.paths[index]}' was not opened: only its name was asked for")


def evenly_spaced(source: Source, size: int) -> Subset:
    """Takes ``size`` records from the first to the last, or all if there are fewer."""
    size = min(size, len(source))
    return Subset(source, np.linspace(0, len(source) - 1, size).round().astype(int))


def few_shot(source: Source, size: int, seed: int) -> Subset:
    """Draws ``size`` different records, in the order of the source."""
    if not 0 < size <= len(source):
        raise UserError(f"data.few_shot={size}: the set has {len(source)} training images")
    rng = np.random.default_rng([seed, len(source)])
    return Subset(source, np.sort(rng.choice(len(source), size, replace=False)))


def held_out(source: Source, share: float, seed: int) -> tuple[Source, Subset]:
    """Draws the share of a source that is kept apart, at least one record if any.

    Returns:
      What is left, and what was drawn; both in the order of the source.

    Raises:
      UserError: the share is out of range or leaves nothing.
    """
    size = max(1, round(share * len(source))) if share else 0
    if not 0 <= share < 1 or size >= len(source):
        raise UserError(
            f"data.holdout={share}: a share of the {len(source)} training images from 0 up to, "
            "but not including, 1; it must leave some to train on"
        )
    drawn = np.zeros(len(source), bool)
    drawn[np.random.default_rng([seed, 1]).choice(len(source), size, replace=False)] = True
    return Subset(source, np.flatnonzero(~drawn)), Subset(source, np.flatnonzero(drawn))


def fold(source: Source, number: int, folds: int, seed: int) -> tuple[Subset, Subset]:
    """Deals the records into parts that differ by one at most, and keeps one apart.

    Returns:
      The other parts, and the part of that number; both in the order of the source.

    Raises:
      UserError: there are fewer records than parts, or no such part.
    """
    if not 0 <= number < folds <= len(source) or folds < 2:
        raise UserError(
            f"part {number} of {folds} (eval.folds, data.fold): give 2 to {len(source)} parts, as "
            "many as there are training images, numbered from 0"
        )
    drawn = np.zeros(len(source), bool)
    drawn[np.random.default_rng([seed, 2]).permutation(len(source))[number::folds]] = True
    return Subset(source, np.flatnonzero(~drawn)), Subset(source, np.flatnonzero(drawn))
