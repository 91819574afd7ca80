"""Pictures that the tests of synthetic anomalies share."""

import numpy as np


def noise(seed, shape=(64, 64), low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, (*shape, 3)).astype(np.uint8)


def disk(seed, side=96, radius=30):
    """A dark, textured disk somewhere on a white ground."""
    rng = np.random.default_rng(seed)
    row, column = rng.integers(radius + 4, side - radius - 4, 2)
    grid = np.arange(side)
    inside = np.hypot(grid[:, None] - row, grid - column) <= radius
    image = np.full((side, side, 3), 230, np.uint8)
    image[inside] = rng.integers(20, 120, (inside.sum(), 3))
    return image, inside
