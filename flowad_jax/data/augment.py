"""What is drawn anew whenever a training image is visited: rotation, sharpness, anomalies.

Everything random of a visit comes from the generator it is given, in a fixed order: the angle,
the sharpness, brightness and contrast, the source of a patch, its sharpness, then whatever
synthesis draws.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowad_jax.data import layout, transforms
from flowad_jax.data.resized import ResizedImages
from flowad_jax.errors import UserError
from flowad_jax.lookup import check_choice
from flowad_jax.synthesis import Synthesiser, draw_source, source_scale

ARRANGEMENTS = ("pairs", "mixture")


class Synthesis(NamedTuple):
    """Synthetic anomalies in training batches.

    Attributes:
      make: makes an anomaly, see `flowad_jax.synthesis.make`.
      arrangement: ``"pairs"`` puts the synthetic versions of all images of a batch below them;
        ``"mixture"`` replaces the images.
      mask_threshold: a pixel is anomalous where the soft mask exceeds it.
      source_files: images that patches come from; empty for the other records of the set.
      unchanged_as_negative: of ``"pairs"``, label a synthetic version that is no different as
        anomalous all the same; else it is excluded from the loss.
    """

    make: Synthesiser
    arrangement: str
    mask_threshold: float = 0.0
    source_files: Sequence[Path] = ()
    unchanged_as_negative: bool = False


class Row(NamedTuple):
    """A row of a batch: (H, W, 3) uint8 and (H, W) bool; weight 0 excludes it from the loss."""

    image: np.ndarray
    mask: np.ndarray
    label: int
    weight: float


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; the default is not at all.

    Attributes:
      rotation_degrees: bound of the uniform random rotation.
      sharpen: probability that an image's sharpness is doubled.
      synthesis: how to make anomalies, or None.
      jitter: bound of the uniform random change of brightness and of contrast.
    """

    rotation_degrees: float = 0.0
    sharpen: float = 0.0
    synthesis: Synthesis | None = None
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not self.rotation_degrees >= 0:
            raise UserError(
                f"data.rotation_degrees={self.rotation_degrees} is too small: use 0 or more"
            )
        if not 0 <= self.sharpen <= 1:
            raise UserError(f"data.sharpen={self.sharpen} is no probability: use 0 to 1")
        if self.synthesis is None:
            return
        _, arrangement, threshold, _, unchanged_as_negative = self.synthesis
        check_choice("synthesis.arrangement", arrangement, ARRANGEMENTS)
        if unchanged_as_negative and arrangement != "pairs":
            why = "this method does not learn from pairs: set it to False"
            raise UserError(f"synthesis.unchanged_as_negative=True: {why}")
        if not 0 <= threshold < 1:
            why = "masks lie in [0, 1]: use 0 or more, less than 1"
            raise UserError(f"synthesis.mask_threshold={threshold}: {why}")

    @property
    def varies(self) -> bool:
        """Whether an image looks different at every visit."""
        return bool(self.rotation_degrees or self.sharpen or self.synthesis or self.jitter)

    def rows(
        self, images: ResizedImages, index: int, label: int, count: int, rng: np.random.Generator
    ) -> tuple[Row, ...]:
        """Makes what a visit of record ``index``, of ``count``, adds to a batch.

        Returns:
          One row, or with ``"pairs"`` the image as it is and the synthetic one.
        """
        image, mask = images.record(index)
        if self.rotation_degrees:
            degrees = (2 * rng.random() - 1) * self.rotation_degrees
            image, mask = (transforms.rotate(x, degrees) for x in (image, mask))
        image = transforms.sharpen(image) if self._draw_sharpening(rng) else image
        if self.jitter:
            image = transforms.jitter(image, *rng.uniform(1 - self.jitter, 1 + self.jitter, 2))
        row, synthesis = Row(image, mask, label, 1.0), self.synthesis
        if synthesis is None:
            return (row,)
        canvas = images.canvas.scaled(source_scale(synthesis.make))
        if files := synthesis.source_files:
            patch_source = images.file(files[int(rng.integers(len(files)))], canvas)
        else:
            patch_source = images.image(draw_source(index, count, rng), canvas)
        if self._draw_sharpening(rng):  # on its own, as in SSNF
            patch_source = transforms.sharpen(patch_source)
        made = synthesis.make(image, patch_source, rng)
        is_pair = synthesis.arrangement == "pairs"
        is_anomalous = made.changed or synthesis.unchanged_as_negative
        changed = Row(
            image=made.image,
            mask=mask | (made.mask > synthesis.mask_threshold),
            label=max(label, int(is_anomalous)),
            weight=1.0 if is_anomalous or not is_pair else 0.0,
        )
        return (row, changed) if is_pair else (changed,)

    def _draw_sharpening(self, rng: np.random.Generator) -> bool:
        return bool(self.sharpen) and rng.random() < self.sharpen


def find_source_files(folder: str | Path) -> list[Path]:
    """Image files in a folder and all below it, sorted; passes over hidden and linked folders.

    Raises:
      UserError: there is no such folder, or no image in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"synthesis.lenders='{root}' is no folder: give one that holds images")
    found: list[Path] = []
    for here, below, _ in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        found += layout.images(Path(here))
    if not found:
        raise UserError(f"synthesis.lenders='{root}' holds no images: give another folder")
    return sorted(found)
