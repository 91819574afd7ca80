"""Pixel metrics at the sizes that masks have in the data set, instead of the network's square.

There a small defect has not been shrunk away, and what is measured are the maps that a user gets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from flowad_jax.lookup import check_choice

MASK_SIZES = ("network", "native")


class Records(Protocol):
    """A source of records with ``mask`` (H, W) bool; several threads ask for them at once."""

    def __len__(self) -> int:
        """Number of records."""

    def __getitem__(self, index: int) -> Any:
        """One record."""


def check_mask_size(mask_size: str) -> None:
    """Raises a UserError unless ``eval.mask_size`` is one of ``MASK_SIZES``."""
    check_choice("eval.mask_size", mask_size, MASK_SIZES)


def native(source: Records, maps: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Reads the masks of a source and scales anomaly maps (N, h, w) to them.

    See `read_masks` and `resized`; a second set of maps needs the masks read only once.

    Raises:
      UserError: a file cannot be read.
    """
    masks = read_masks(source)
    return masks, resized(maps, masks)


def read_masks(source: Records) -> list[np.ndarray]:
    """Reads the masks (H, W) bool of all records, each at its own size; 1 byte per pixel.

    A source of image files has a method ``mask(index)``, which decodes no image.

    Raises:
      UserError: a file cannot be read.
    """
    count = len(source)
    read = getattr(source, "mask", lambda index: source[index].mask)
    bar = tqdm(total=count, desc="masks", unit="img", disable=None, leave=False)
    found = []
    with bar, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for mask in pool.map(read, range(count)):
            found.append(mask)
            bar.update()
    return found


def resized(maps: np.ndarray, masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Scales anomaly maps to the sizes of masks, bilinearly and with coinciding edges.

    That is how images were scaled to the network's size, and how a detector hands out its maps;
    shrinking averages.

    Args:
      maps: (N, h, w).
      masks: N arrays (H, W) of any sizes.

    Returns:
      N float32 arrays (H, W), 4 bytes per pixel. They are less the largest value of all maps: no
      metric notices, and where most methods' maps saturate, numbers near 0 are told apart that
      float32 would round to the same value.
    """
    highest = np.max(maps, where=np.isfinite(maps), initial=np.finfo(maps.dtype).min)
    return [resize_map(one - highest, mask.shape) for one, mask in zip(maps, masks, strict=True)]


def resize_map(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Scales a map (h, w) to (H, W) in float32; linear, so that no value exceeds its own."""
    picture = Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
