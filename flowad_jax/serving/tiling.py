"""Overlap-tile inference: an image larger than the network's input, at its own resolution.

The image is cut into overlapping tiles of the side S that the network was trained with, every tile
becomes likelihood maps, and these are stitched into maps of the whole image, scale by scale, before
a method makes scores of them (the overlap-tile strategy of Ronneberger, Fischer and Brox: "U-Net",
MICCAI 2015, with blending in place of cropping). For this the images of training, scaled to S, have
to show things as large as a tile does, and a position code refers to places within a tile.

Towards its border a tile knows less than the whole image does: padding has entered the receptive
field. On 512 px photographs of brick, grass and gravel, the features of EfficientNet-Lite0 in a
256 px tile differ from those of the whole photograph, relative to their spread, by 0.75 at stride 8
and 1.07 at stride 16 in the outermost positions, by 0.08 (20 px) and 0.61 (24 px) further inside,
and by 0.01 (28 px) and 0.18 (56 px) behind that. So a tile fades out over S/4, as a squared sine:
the outermost position at stride 8 counts for 1 %, its neighbour for 8 %. At stride 32 the receptive
field is larger than the tile, which differs from the photograph everywhere: no overlap changes
that, but tiles are what the flow was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from flowad_jax.data._windows import Windows
from flowad_jax.errors import UserError


@dataclass(frozen=True)
class Tiles:
    """How an image is cut: every row offset with every column offset, row by row.

    Attributes:
      size: (H, W) pixels of the image.
      padded: (H, W) with what is added at the bottom and on the right, multiples of the step.
      tile: S, side of a tile in pixels.
      overlap: width of the fade, in pixels; neighbours share at least that much.
      step: least distance of tiles, in pixels, a multiple of all maps' pixels per position.
      rows, columns: offsets of the tiles in pixels, multiples of the step; the first is 0 and the
        last tile ends with the padded image.
    """

    size: tuple[int, int]
    padded: tuple[int, int]
    tile: int
    overlap: int
    step: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)


def coarsest_stride(tile: int, sides: Sequence[int]) -> int:
    """Returns the step of `plan`, at which positions of all maps coincide.

    Args:
      tile: S, side of a tile in pixels.
      sides: side of every map of a tile, in positions.

    Raises:
      UserError: some map has no whole number of pixels per position.
    """
    step = tile // min(sides)
    if any(tile % side or step % (tile // side) for side in sides):
        maps = ", ".join(f"{side} x {side}" for side in sides)
        raise UserError(
            f"data.image_size={tile} cannot be tiled: positions of its maps ({maps}) do not "
            "coincide; train with a multiple of the encoder's coarsest stride, or predict untiled"
        )
    return step


def default_overlap(tile: int, step: int) -> int:
    """A quarter of the tile, rounded up to the step; 0 where a tile has a single position."""
    return min(-(-tile // (4 * step)) * step, tile - step)


def plan(size: tuple[int, int], tile: int, overlap: int, step: int) -> Tiles:
    """Places as few tiles as cover an image, evenly spread.

    Args:
      size: (H, W) pixels of the image; a side below the tile's is padded to one tile.
      tile: S, side of a tile in pixels, a multiple of the step.
      overlap: least number of pixels that neighbours share.
      step: pixels per position of the coarsest map, see `coarsest_stride`.

    Raises:
      UserError: the tile is no multiple of the step, or the overlap leaves no way forward.
    """
    if tile % step:
        raise UserError(f"data.image_size={tile} cannot be tiled: use a multiple of {step}")
    if not 0 <= overlap <= tile - step:
        raise UserError(f"overlap={overlap}: must be from 0 to {tile - step} for tiles of {tile}")
    padded = (_padded(size[0], tile, step), _padded(size[1], tile, step))
    rows, columns = (_offsets(side, tile, overlap, step) for side in padded)
    return Tiles(size, padded, tile, overlap, step, rows, columns)


def _padded(side: int, tile: int, step: int) -> int:
    return max(tile, -(-side // step) * step)


def _offsets(side: int, tile: int, overlap: int, step: int) -> tuple[int, ...]:
    span, longest = (side - tile) // step, (tile - overlap) // step
    moves = -(-span // longest)
    return tuple(step * (move * span // max(moves, 1)) for move in range(moves + 1))


def cut(image: np.ndarray | Windows, tiles: Tiles) -> Iterator[np.ndarray]:
    """Yields the tiles (S, S, 3) of an image (H, W, 3); beyond its borders it is reflected.

    Of a file only the rows and columns of a tile are read.
    """
    height, width = tiles.size
    for top in tiles.rows:
        rows = _reflected(top, tiles.tile, height)
        for left in tiles.columns:
            columns = _reflected(left, tiles.tile, width)
            box = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
            part = (
                image[box[0] : box[1], box[2] : box[3]]
                if isinstance(image, np.ndarray)
                else image.read(*map(int, box))
            )
            yield part[np.ix_(rows - box[0], columns - box[2])]


def _reflected(start: int, count: int, side: int) -> np.ndarray:
    """Indices 0 ... side - 1, back and forth without repeating the turning points."""
    period = max(2 * (side - 1), 1)
    index = np.arange(start, start + count) % period
    return np.minimum(index, period - index) if side > 1 else np.zeros(count, int)


class Stitcher:
    """Puts the maps of tiles together; keeps nothing but the maps of the whole image.

    Overlapping tiles are averaged with weights that fall as a squared sine over the overlap, and
    not towards borders of the image. What a position gets from its tiles sums to 1.
    """

    def __init__(self, tiles: Tiles):
        """Starts without tiles; their first maps say how many scales there are."""
        self._tiles = tiles
        self._missing = set(range(len(tiles)))
        self._maps: list[np.ndarray] = []
        self._shares: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, index: int, maps: Sequence[np.ndarray]) -> None:
        """Adds the maps (h, h) of one tile, L scales, as the ``index``-th that `cut` yields.

        Raises:
          ValueError: the tile was added before, or a map is coarser than the plan's step.
        """
        if index not in self._missing:
            raise ValueError(f"tile {index} of {len(self._tiles)} was added before, or is none")
        if not self._maps:
            self._allocate([len(values) for values in maps])
        row, column = divmod(index, len(self._tiles.columns))
        offsets = self._tiles.rows[row], self._tiles.columns[column]
        for values, whole, shares in zip(maps, self._maps, self._shares, strict=True):
            side = len(values)
            top, left = (offset * side // self._tiles.tile for offset in offsets)
            weight = np.outer(shares[0][row], shares[1][column])
            whole[top : top + side, left : left + side] += weight * values
        self._missing.remove(index)

    def result(self) -> tuple[list[np.ndarray], tuple[int, int]]:
        """Returns the maps of the whole image and what they stand for.

        Returns:
          L float64 maps (H / s, W / s), where s are the pixels per position, and the (H, W) of the
          padded image: maps are to be resized to it and then cut to the ``size`` of the tiles.

        Raises:
          ValueError: tiles are missing.
        """
        if self._missing:
            raise ValueError(f"{len(self._missing)} of {len(self._tiles)} tiles were not added")
        return self._maps, self._tiles.padded

    def _allocate(self, sides: list[int]) -> None:
        tiles = self._tiles
        stride = coarsest_stride(tiles.tile, sides)
        if tiles.step % stride:
            raise ValueError(f"tiles are {tiles.step} pixels apart, positions of a map {stride}")
        for side in sides:
            height, width = (pixels * side // tiles.tile for pixels in tiles.padded)
            self._maps.append(np.zeros((height, width)))
            self._shares.append(
                (_shares(tiles, tiles.rows, side), _shares(tiles, tiles.columns, side))
            )


def _shares(tiles: Tiles, offsets: tuple[int, ...], side: int) -> np.ndarray:
    """What tiles count for along one axis (len(offsets), side), of 1 for every position."""
    distance = (np.arange(side) + 0.5) * (tiles.tile / side)
    fade = np.sin(0.5 * np.pi * np.minimum(distance / max(tiles.overlap, 1e-9), 1.0)) ** 2
    weights = np.ones((len(offsets), side))
    weights[1:] *= fade
    weights[:-1] *= fade[::-1]
    starts = [offset * side // tiles.tile for offset in offsets]
    total = np.zeros(starts[-1] + side)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + side] += weight
    return np.stack(
        [
            weight / total[start : start + side]
            for start, weight in zip(starts, weights, strict=True)
        ]
    )


def family_wise(p_values: Sequence[float] | np.ndarray) -> float:
    """Returns the p-value of an image from those of its K tiles: ``min(1, K * smallest)``.

    Every tile is as large as the images that its p-value compares it with. If tiles of a normal
    image are like these, the union bound (Bonferroni) holds however much they overlap or resemble
    each other: with a probability of at most r the image's p-value is r or less. With n held-out
    images it is never less than ``K / (n + 1)``.
    """
    # As a fraction, which it is: 3 x 0.1 as floats exceeds a rate of 0.3.
    smallest = Fraction(float(np.min(p_values))).limit_denominator(1_000_000)
    return float(min(Fraction(1), len(p_values) * smallest))


def indecision(count: int, card: dict[str, Any]) -> str | None:
    """Says why an image of K tiles cannot be called anomalous, whatever it shows; None if it can.

    Args:
      count: K tiles.
      card: calibration card of the detector, see `conformal.card`.
    """
    least = family_wise([1 / (card["images"] + 1)] * count)
    if least <= card["promised"]:
        return None
    return (
        f"an image of {count} tiles has a p-value of at least {least:.3g} with {card['images']} "
        f"held-out images, above the false-alarm rate of {card['promised']:.3g}; look at its "
        "regions, hold out more images (data.holdout), or allow a higher rate"
    )
