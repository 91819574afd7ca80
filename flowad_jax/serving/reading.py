"""Image files on their way to a detector: few pixels at a time, the next ones read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from flowad_jax.data import transforms
from flowad_jax.data.images import WHITE, image_size, read_image, read_resized
from flowad_jax.errors import UserError

KEPT = 2**25  # pixels of whole images that a batch keeps
READERS = 2  # threads that decode the next batch during this one

Item = TypeVar("Item")


class Loaded(NamedTuple):
    """An image as a detector takes it.

    Attributes:
      resized: (S, S, 3) uint8.
      size: (H, W) of the image.
      pixels: (H, W, 3) uint8, or None if they were too many to keep.
    """

    resized: np.ndarray
    size: tuple[int, int]
    pixels: np.ndarray | None


def load_image(
    path: Path, size: int, filter: str = "lanczos", white: int = WHITE, keep: int = 0
) -> Loaded:
    """Reads an image file.

    Args:
      path: the file.
      size: S.
      filter: Pillow's, for resizing.
      white: see `read_image`.
      keep: largest number of pixels that are kept beside the resized ones.

    Raises:
      UserError: it cannot be read.
    """
    height, width = image_size(path)
    if height * width > keep:
        return Loaded(*read_resized(path, size, filter, white), None)
    pixels = read_image(path, white)
    return Loaded(transforms.resize_image(pixels, size, filter), pixels.shape[:2], pixels)


def check_pixels(image: Any) -> np.ndarray:
    """Returns an image.

    Raises:
      UserError: it is no (H, W, 3) uint8 array with pixels.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
        raise UserError(f"an image is {describe(image)}: give (H, W, 3) uint8, or a file")
    if not image.size:
        raise UserError(f"an image is {describe(image)}: it has no pixels")
    return image


def describe(value: Any) -> str:
    """Says what was given in place of an image."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"of type {type(value).__name__}"


def read_ahead(
    batches: Iterable[Sequence[Path]], read: Callable[[Path], Item]
) -> Iterator[list[Item]]:
    """Yields batches while threads read the next one; two are in memory at most."""
    waiting: deque[list[Future[Item]]] = deque()
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
    try:
        for paths in batches:
            waiting.append([pool.submit(read, path) for path in paths])
            if len(waiting) > 1:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
