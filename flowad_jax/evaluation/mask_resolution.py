"""Pixel metrics at the sizes that masks have in the data set, instead of the network's.

There a small defect has not been shrunk away, and what is measured are the maps that a user gets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32
from PIL import Image
from tqdm.auto import tqdm

from flowad_jax.canvas import Canvas

MASK_SIZES = ("network", "native")


def read_masks(source: Any) -> list[Bool[np.ndarray, "H W"]]:
    """Reads the masks of all records of a data source, each at its own size; 1 byte per pixel.

    A source of image files has a method ``mask(index)``, which decodes no image; several threads
    ask for it at once.

    Raises:
      UserError: a file cannot be read.
    """
    read = getattr(source, "mask", lambda index: source[index].mask)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(read, range(len(source)))
        bar = tqdm(found, "masks", len(source), unit="img", disable=None, leave=False)
        return list(bar)


def resized(
    maps: Float[np.ndarray, "N h w"], sizes: Sequence[tuple[int, ...]], canvas: Canvas
) -> list[Float32[np.ndarray, "H W"]]:
    """Brings anomaly maps of a canvas to sizes (H, W), see `at_image`.

    Returns:
      4 bytes per pixel. Values are less the largest of all maps: no metric notices, and where most
      methods' maps saturate, numbers near 0 are told apart that float32 would round to the same.
    """
    top, pairs = highest(maps), zip(maps, sizes, strict=True)
    return [at_image(one - top, canvas, size) for one, size in pairs]


def highest(maps: Float[np.ndarray, "N h w"]) -> Any:
    """Returns the largest finite value."""
    return np.max(maps, where=np.isfinite(maps), initial=np.finfo(maps.dtype).min)


def at_image(
    values: Float[np.ndarray, "h w"], canvas: Canvas, size: tuple[int, ...]
) -> Float32[np.ndarray, "H W"]:
    """Brings the map of a canvas back to its image, (H, W).

    Bilinear and with coinciding edges, as images were scaled to the canvas: no value exceeds those
    of the map, and shrinking averages. What was padded is cut off. What was cropped away, and so
    never judged, gets the map's least value.
    """
    seen, place = canvas.seen(size), canvas.place(size)
    picture = Image.fromarray(values[place.rows, place.columns].astype(np.float32))
    found = np.asarray(picture.resize((seen.width, seen.height), Image.Resampling.BILINEAR))
    if found.shape == tuple(size):
        return found
    whole = np.full(size, np.fmin.reduce(found, axis=None), np.float32)
    whole[seen.rows, seen.columns] = found
    return whole
