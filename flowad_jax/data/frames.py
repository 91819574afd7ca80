"""Frames of labelled videos, whose masks lie in one array of NumPy per video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowad_jax.data import fingerprint
from flowad_jax.data.images import read_image
from flowad_jax.data.layout import UNPACK
from flowad_jax.data.record import GOOD, Record
from flowad_jax.errors import UserError

OR_NO_MASKS = f"{UNPACK}, or set data.options.masks to 'none'"


class Frame(NamedTuple):
    """Where one record lies.

    Attributes:
      path: the image.
      label: 0 or 1.
      masks: file of all masks of its video, None where the mask is empty or unknown.
      number: of the frame in its video, from 0.
    """

    path: Path
    label: int
    masks: Path | None
    number: int


class FrameSource:
    """A ``record.Source`` of frames; keeps no file open, so that threads and copies are safe."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        """Keeps the frames in the given order."""
        self._frames = list(frames)
        self.kinds = ["anomaly" if frame.label else GOOD for frame in self._frames]
        self.paths = [str(frame.path) for frame in self._frames]
        self.labels = np.array([frame.label for frame in self._frames], np.int32)
        self.has_masks = any(frame.masks for frame in self._frames)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._frames)

    def __getitem__(self, index: int) -> Record:
        """Decodes one frame and reads its part of the masks, or raises a UserError."""
        frame = self._frames[index]
        image = read_image(frame.path)
        mask = np.zeros(image.shape[:2], bool)
        if frame.masks:
            masks = _array(frame.masks)
            count = max(len(masks), frame.number + 1)  # it may have changed since
            _check_shape(frame.masks, masks, (count, *mask.shape), frame.path)
            mask = np.asarray(masks[frame.number] != 0)
        return Record(image, mask, frame.label, self.kinds[index], self.paths[index])

    def fingerprint(self, index: int) -> str:
        """The checksum of an image file."""
        return fingerprint.of_file(self._frames[index].path)


def read_labels(path: Path, frames: Sequence[Path]) -> np.ndarray:
    """Returns the label of each frame of a video, 0 or 1.

    Raises:
      UserError: the file is damaged, of another length, or holds other values.
    """
    labels = np.array(_array(path))
    if labels.shape != (len(frames),):
        folder = frames[0].parent
        what = f"an array of shape {labels.shape}, but '{folder}' holds {len(frames)} frames"
        raise UserError(f"'{path}' holds {what}: {UNPACK}")
    if not np.isin(labels, (0, 1)).all():
        raise UserError(f"'{path}' holds labels other than 0 and 1: {UNPACK}")
    return labels.astype(np.int32)


def check_masks(path: Path, frames: Sequence[Path]) -> None:
    """Compares the masks of a video with its frames; reads no mask.

    Raises:
      UserError: the file or the first frame is damaged, or the numbers or sizes differ.
    """
    size = read_image(frames[0]).shape[:2]
    _check_shape(path, _array(path), (len(frames), *size), frames[0])


def _check_shape(path: Path, masks: np.ndarray, shape: tuple[int, ...], frame: Path) -> None:
    if masks.shape != shape:
        raise UserError(
            f"'{path}' holds masks of shape {masks.shape}, but the frames as '{frame}' are of "
            f"shape {shape}: {OR_NO_MASKS}"
        )


def _array(path: Path) -> np.ndarray:
    """Maps a file into memory, so that only what is used of it is read."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy raises nearly any type on damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot read '{path}': {reason}: {UNPACK}") from error
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise UserError(f"'{path}' holds no array of numbers but {array.dtype}: {UNPACK}")
    return array
