"""Overlap-tile inference: an image larger than the network's input, at its own resolution.

The image is cut into overlapping tiles of the size that the network was trained with, every tile
becomes likelihood maps, and these are stitched into maps of the whole image, scale by scale, before
a method makes scores of them (the overlap-tile strategy of Ronneberger, Fischer and Brox: "U-Net",
MICCAI 2015, with blending in place of cropping). For this the images of training, scaled to it,
have to show things as large as a tile does, and a position code refers to places within a tile.

Towards its border a tile knows less than the whole image does: padding has entered the receptive
field. On 512 px photographs of brick, grass and gravel, the features of EfficientNet-Lite0 in a
256 px tile differ from those of the whole photograph, relative to their spread, by 0.75 at stride 8
and 1.07 at stride 16 in the outermost positions, by 0.08 (20 px) and 0.61 (24 px) further inside,
and by 0.01 (28 px) and 0.18 (56 px) behind that. So a tile fades out over a quarter of its side, as
a squared sine: the outermost position at stride 8 counts for 1 %, its neighbour for 8 %. At stride
32 the receptive field is larger than the tile, which differs from the photograph everywhere: no
overlap changes that, but tiles are what the flow was trained on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from flowad_jax.canvas import Canvas
from flowad_jax.data.images import Windows
from flowad_jax.errors import UserError


@dataclass(frozen=True)
class Tiles:
    """How an image is cut: every row offset with every column offset, row by row.

    Attributes:
      size: (H, W) pixels of the image.
      padded: (H, W) with what is added at the bottom and on the right, multiples of the step.
      tile: (h, w) of a tile in pixels.
      overlap: width of the fade along both axes, in pixels; neighbours share at least that much.
      rows, columns: offsets of the tiles in pixels, multiples of the step; the first is 0 and the
        last tile ends with the padded image.
    """

    size: tuple[int, int]
    padded: tuple[int, int]
    tile: tuple[int, int]
    overlap: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)


def plan(
    size: tuple[int, int],
    tile: tuple[int, int],
    maps: Sequence[tuple[int, int]],
    overlap: int | None = None,
) -> Tiles:
    """Places as few tiles as cover an image, evenly spread, where positions of all maps coincide.

    Args:
      size: (H, W) pixels of the image; a side below the tile's is padded to one tile.
      tile: (h, w) of a tile in pixels.
      maps: (h, w) of every map of a tile, in positions.
      overlap: least number of pixels that neighbours share, at most a tile less one position of
        the coarsest map; None for a quarter of the tile, rounded up to such positions.

    Raises:
      UserError: no position of the coarsest map is a whole number of pixels and of positions of
        every other map.
    """
    by_axis = zip(size, tile, zip(*maps, strict=True), strict=True)
    try:
        (height, top, rows), (width, left, columns) = (_axis(*one, overlap) for one in by_axis)
    except ArithmeticError:
        shown = ", ".join(f"{high} x {wide}" for high, wide in maps)
        raise UserError(
            f"data.image_size={Canvas(*tile).size} cannot be tiled: positions of its maps "
            f"({shown}) do not coincide; train with a multiple of the encoder's coarsest stride, "
            "or predict untiled"
        ) from None
    return Tiles(size, (height, width), tile, (top, left), rows, columns)


def _axis(
    pixels: int, side: int, positions: Sequence[int], overlap: int | None
) -> tuple[int, int, tuple[int, ...]]:
    """Padded length, overlap and offsets of tiles along an axis of so many pixels.

    Raises:
      ArithmeticError: positions of the maps do not coincide.
    """
    step = side // min(positions)
    if any(side % count or step % (side // count) for count in positions):
        raise ArithmeticError
    if overlap is None:
        overlap = min(-(-side // (4 * step)) * step, side - step)
    padded = max(side, -(-pixels // step) * step)
    span = (padded - side) // step
    moves = -(-span // ((side - overlap) // step))
    offsets = (step * (move * span // max(moves, 1)) for move in range(moves + 1))
    return padded, overlap, tuple(offsets)


def cut(image: np.ndarray | Windows, tiles: Tiles) -> Iterator[np.ndarray]:
    """Yields the tiles (h, w, 3) of an image (H, W, 3); beyond its borders it is reflected.

    Of a file only the rows and columns of a tile are read.
    """
    for top in tiles.rows:
        rows = _reflected(top, tiles.tile[0], tiles.size[0])
        for left in tiles.columns:
            columns = _reflected(left, tiles.tile[1], tiles.size[1])
            box = [int(x) for x in (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)]
            if isinstance(image, np.ndarray):
                part = image[box[0] : box[1], box[2] : box[3]]
            else:
                part = image.read(*box)
            yield part[np.ix_(rows - box[0], columns - box[2])]


def _reflected(start: int, count: int, side: int) -> np.ndarray:
    """Indices 0 ... side - 1, back and forth without repeating the turning points."""
    index = np.arange(start, start + count) % max(2 * (side - 1), 1)
    return np.minimum(index, 2 * (side - 1) - index) if side > 1 else index


def stitch(tiles: Tiles, maps: Iterable[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Puts the maps of tiles together; holds nothing but the maps of the whole image.

    Overlapping tiles are averaged with weights that fall as a squared sine over the overlap, and
    not towards borders of the image. What a position gets from its tiles sums to 1.

    Args:
      tiles: the plan.
      maps: for every tile that `cut` yields its maps (h, w), L scales.

    Returns:
      L float64 maps (H / s, W / s) of the padded image, where s are the pixels per position: they
      are to be resized to it and then cut to the ``size`` of the tiles.
    """
    stitched: list[np.ndarray] = []
    shares: list[list[np.ndarray]] = []
    corners = itertools.product(range(len(tiles.rows)), range(len(tiles.columns)))
    for (row, column), own in zip(corners, maps, strict=True):
        if not stitched:
            axes = [*zip(tiles.padded, tiles.tile, strict=True)]
            stitched = [
                np.zeros([p * s // t for (p, t), s in zip(axes, x.shape, strict=True)]) for x in own
            ]
            shares = [[_shares(tiles, axis, x.shape[axis]) for axis in (0, 1)] for x in own]
        for values, whole, (down, across) in zip(own, stitched, shares, strict=True):
            high, wide = values.shape
            top = tiles.rows[row] * high // tiles.tile[0]
            left = tiles.columns[column] * wide // tiles.tile[1]
            weight = np.outer(down[row], across[column])
            whole[top : top + high, left : left + wide] += weight * values
    return stitched


def _shares(tiles: Tiles, axis: int, count: int) -> np.ndarray:
    """What tiles count for along an axis (tiles, count), of 1 for every position."""
    offsets, side = (tiles.rows, tiles.columns)[axis], tiles.tile[axis]
    distance = (np.arange(count) + 0.5) * (side / count)
    fade = np.sin(0.5 * np.pi * np.minimum(distance / max(tiles.overlap[axis], 1e-9), 1.0)) ** 2
    weights = np.ones((len(offsets), count))
    weights[1:] *= fade
    weights[:-1] *= fade[::-1]
    positions = np.array(offsets)[:, None] * count // side + np.arange(count)
    return weights / np.bincount(positions.ravel(), weights.ravel())[positions]


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
    """Says why an image of so many tiles cannot be called anomalous; None if it can.

    ``card`` is the calibration card of the detector, see `Decisions`.
    """
    least = family_wise([1 / (card["images"] + 1)] * count)
    if least <= card["level"]:
        return None
    return (
        f"an image of {count} tiles has a p-value of at least {least:.3g} with {card['images']} "
        f"held-out images, above the false-alarm rate of {card['level']:.3g}; look at its "
        "regions, hold out more images (data.holdout), or allow a higher rate"
    )
