"""Images that a program holds, kept as files: training resumes on them, and reports show them."""

from __future__ import annotations

import filecmp
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flowad_jax import files
from flowad_jax.data import layout
from flowad_jax.data.image_file import SUFFIXES
from flowad_jax.data.images import WHITE, dark_advice, read_image
from flowad_jax.data.pixels import TAKEN, to_pixels
from flowad_jax.errors import UserError

log = logging.getLogger("flowad_jax")


def keep(images: Iterable[Any], folder: Path, white: int = WHITE) -> None:
    """Makes a folder of images: links to those that are files, lossless 8-bit PNG of the others.

    A folder that is there already has to hold the same ones.

    Args:
      images: paths of files, or what `to_pixels` takes; not both.
      folder: appears when it is complete.
      white: see `to_pixels`.

    Raises:
      UserError: there are none, one is no image, both kinds are there, or the folder holds others.
    """
    if folder.is_dir():
        kept = [_compare(folder, *numbered, white) for numbered in _checked(images)]
        if more := {path.name for path in layout.images(folder)} - set(kept):
            raise _others(folder, min(more))
        return
    largest = 0.0
    with files.atomic_folder(folder) as place, files.writing(folder):
        for index, image in _checked(images):
            _write(place, index, image, white)
            if str(getattr(image, "dtype", "")) == "uint16":
                largest = max(largest, float(np.max(image)))
    if advice := dark_advice(largest, white, "uint16 arrays", "white"):
        log.warning(advice)


def _checked(images: Iterable[Any]) -> Iterable[tuple[int, Any]]:
    """Numbers images; raises a UserError if there are none, or both paths and pixels."""
    kinds = set()
    for index, image in enumerate(images):
        is_path = isinstance(image, str | os.PathLike)
        kinds.add(is_path)
        if len(kinds) > 1:
            raise UserError(f"image {index}: images are paths and pixels mixed: give only one kind")
        if is_path and not os.path.isfile(image):
            raise UserError(f"image {index}: there is no file '{os.fspath(image)}'")
        yield index, image
    if not kinds:
        raise UserError(f"there are no images: {TAKEN}, many of them")


def _name(index: int, image: Any) -> str:
    is_known = isinstance(image, str | os.PathLike) and Path(image).suffix.lower() in SUFFIXES
    return f"{index:05d}-{Path(image).name}" if is_known else f"{index:05d}.png"


def _pixels(index: int, image: Any, white: int) -> np.ndarray:
    if isinstance(image, str | os.PathLike):  # whose suffix does not say that it is an image
        return read_image(os.fspath(image), white)
    return to_pixels(image, white, f"image {index}")


def _write(folder: Path, index: int, image: Any, white: int) -> None:
    path = folder / _name(index, image)
    if path.name == f"{index:05d}.png":
        Image.fromarray(_pixels(index, image, white)).save(path, "PNG")
        return
    try:
        path.symlink_to(Path(image).absolute())
    except (NotImplementedError, OSError):  # Windows asks for a right that few have
        shutil.copyfile(image, path)


def _compare(folder: Path, index: int, image: Any, white: int) -> str:
    """Returns the name of an image in a folder, or raises a UserError if another one is there."""
    path = folder / _name(index, image)
    if not path.is_file():
        raise _others(folder, f"{index:05d}")
    if path.name == f"{index:05d}.png":
        same = np.array_equal(read_image(path), _pixels(index, image, white))
    else:
        same = filecmp.cmp(path, image, shallow=False)
    if not same:
        raise _others(folder, path.name)
    return path.name


def _others(folder: Path, name: str) -> UserError:
    fix = "use another workdir, or delete that folder"
    return UserError(f"'{folder}' holds other images, see '{name}': {fix}")
