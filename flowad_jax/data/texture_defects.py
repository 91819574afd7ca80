"""Five kinds of defect painted on a texture, each with its exact mask.

A painter is a function ``(tile, foreign, strength, rng) -> (changed, weight)``: the defect shows
``changed`` to the share ``weight``. Arrays are (H, W) float64 in grey levels; ``foreign`` is a
tile of another texture. Random numbers come from ``Generator.random`` alone, the one method
whose results are the same in every NumPy release.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from scipy import ndimage

Painted = tuple[np.ndarray, np.ndarray]
Painter = Callable[[np.ndarray, np.ndarray, float, Generator], Painted]

_LEAST_WEIGHT = 0.1  # what shows less than this is left out of picture and mask alike


def paint(
    kind: str, tile: np.ndarray, foreign: np.ndarray, strength: float, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Puts one defect somewhere on a tile.

    Args:
      kind: a key of ``PAINTERS``.
      tile: (H, W) uint8.
      foreign: another texture, of the same shape.
      strength: 1 as designed, less is harder to see.
      rng: decides place, size, form and contrast.

    Returns:
      The tile with its defect, (H, W) uint8, and the mask, (H, W) bool; outside of the mask no
      pixel has changed.
    """
    clean = tile.astype(np.float64)
    changed, weight = PAINTERS[kind](clean, foreign.astype(np.float64), strength, rng)
    mask = weight > _LEAST_WEIGHT
    mixed = np.rint(np.clip(clean + weight * (changed - clean), 0, 255)).astype(np.uint8)
    return np.where(mask, mixed, tile), mask


def uniform(rng: Generator, low: float, high: float) -> float:
    """Draws from U(low, high)."""
    return low + (high - low) * rng.random()


def scratch(tile: np.ndarray, foreign: np.ndarray, strength: float, rng: Generator) -> Painted:
    """A bent, tapering line, brighter or darker than the surface."""
    size = tile.shape[0]
    length, angle = uniform(rng, 0.3, 0.7) * size, uniform(rng, 0, 2 * np.pi)
    bend, half_width = uniform(rng, -0.15, 0.15) * length, uniform(rng, 1.5, 3.2)
    tone = uniform(rng, 2.0, 3.2) * tile.std() * strength * (1 if rng.random() < 0.5 else -1)
    y, x = _grid(tile, rng)
    along, across = _turn(y, x, angle)
    t = 2 * along / length  # -1 to 1 from end to end
    distance = np.abs(across - bend * (1 - t**2))
    reach = half_width * np.sqrt(np.clip(1 - t**2, 0, 1))
    return tile + tone, np.clip(reach + 0.5 - distance, 0, 1) * (np.abs(t) < 1)


def stain(tile: np.ndarray, foreign: np.ndarray, strength: float, rng: Generator) -> Painted:
    """A spot of paint or oil, darker or paler, under which the texture fades."""
    tone = uniform(rng, 0.8, 1.6) * tile.std() * strength * (1 if rng.random() < 0.7 else -1)
    fade = min(strength * uniform(rng, 0.5, 0.8), 1.0)
    covered = tile.mean() - tone + (1 - fade) * (tile - tile.mean())
    return covered, _soft(_blob(tile, rng, 0.08, 0.2), edge=0.2)


def smear(tile: np.ndarray, foreign: np.ndarray, strength: float, rng: Generator) -> Painted:
    """A wiped area in which the texture has lost its detail and is a little paler."""
    side = 2 * (3 + int(4 * rng.random())) + 1
    pale = ndimage.uniform_filter(tile, side, mode="mirror") + uniform(rng, 6, 14)
    return pale, min(strength, 1.0) * _soft(_blob(tile, rng, 0.1, 0.2), edge=0.3)


def dent(tile: np.ndarray, foreign: np.ndarray, strength: float, rng: Generator) -> Painted:
    """A hollow lit from one side: one half of it is in shade, the other catches the light."""
    radius, light = uniform(rng, 0.09, 0.18) * tile.shape[0], uniform(rng, 0, 2 * np.pi)
    height = uniform(rng, 2.0, 3.2) * tile.std() * strength
    y, x = _grid(tile, rng)
    y, x = y / radius, x / (radius * uniform(rng, 0.7, 1.0))
    inside = np.clip(1 - y**2 - x**2, 0, 1)
    slope = _turn(y, x, light)[0] * inside * 2.6  # of (1 - r^2)^2, scaled to peak near 1
    return tile + height * slope, (inside > 0).astype(np.float64)


def foreign(tile: np.ndarray, foreign: np.ndarray, strength: float, rng: Generator) -> Painted:
    """A piece of another material, brought half-way to the tone and contrast around it."""
    distance = _blob(tile, rng, 0.08, 0.18)
    here, there = tile[distance < 1], foreign[distance < 1]
    contrast = np.sqrt((1 + here.std()) / (1 + there.std()))
    tone = 0.5 * (here.mean() + there.mean())
    toned = tone + contrast * (foreign - there.mean())
    return toned, min(strength, 1.0) * _soft(distance, edge=0.1)


PAINTERS: dict[str, Painter] = {
    "dent": dent,
    "foreign": foreign,
    "scratch": scratch,
    "smear": smear,
    "stain": stain,
}


def _grid(tile: np.ndarray, rng: Generator) -> Painted:
    """Pixel coordinates (y, x) from a random centre that is not at the border."""
    height, width = tile.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return y - uniform(rng, 0.15, 0.85) * height, x - uniform(rng, 0.15, 0.85) * width


def _turn(y: np.ndarray, x: np.ndarray, angle: float) -> Painted:
    """Coordinates along a direction and across it."""
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _blob(tile: np.ndarray, rng: Generator, low: float, high: float) -> np.ndarray:
    """Distance from the centre of an uneven oval, 1 at its outline.

    Its mean radius is ``low`` to ``high`` of the tile's side.
    """
    radius = uniform(rng, low, high) * tile.shape[0]
    y, x = _turn(*_grid(tile, rng), uniform(rng, 0, np.pi))
    y = y * uniform(rng, 1.0, 1.7)
    theta = np.arctan2(y, x)
    outline = np.ones_like(theta)
    for lobes in (2, 3, 5):
        outline += uniform(rng, 0, 0.3 / lobes) * np.cos(lobes * theta + uniform(rng, 0, 6.28))
    return np.hypot(y, x) / (radius * outline)


def _soft(distance: np.ndarray, edge: float) -> np.ndarray:
    """Weight 1 inside an outline and 0 outside; the step takes the share ``edge`` of the radius."""
    t = np.clip((1 - distance) / edge, 0, 1)
    return t * t * (3 - 2 * t)
