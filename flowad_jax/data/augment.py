"""What is drawn anew whenever a training image is visited: rotation, sharpness, anomalies.

Everything random of a visit comes from the generator it is given, in a fixed order: the angle,
the sharpness, who lends material, the lender's sharpness, then whatever synthesis draws.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowad_jax.data import _files, transforms
from flowad_jax.data._resized import ResizedImages
from flowad_jax.errors import UserError
from flowad_jax.lookup import check_choice
from flowad_jax.synthesis import Synthesiser, Synthetic, draw_source, lender_scale

ARRANGEMENTS = ("pairs", "mixture")


class Synthesis(NamedTuple):
    """Synthetic anomalies in training batches.

    Attributes:
      make: makes an anomaly, see ``flowad_jax.synthesis.make``.
      arrangement: ``"pairs"`` puts the synthetic versions of all images of a batch below the clean
        ones; ``"mixture"`` replaces the images.
      mask_threshold: a pixel is anomalous where the soft mask exceeds it.
      lenders: image files that lend material; empty for the other records of the set.
      unchanged_as_negative: with ``"pairs"``, a synthetic version that is no different counts as
        anomalous all the same; else it counts for nothing.
    """

    make: Synthesiser
    arrangement: str
    mask_threshold: float = 0.0
    lenders: Sequence[Path] = ()
    unchanged_as_negative: bool = False


class Row(NamedTuple):
    """A row of a batch before it is normalised.

    Attributes:
      image: (S, S, 3) uint8.
      mask: (S, S) bool, true on defects, real or synthetic.
      label: 1 for anomalous.
      weight: 0 if it shall count for nothing.
    """

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
      share_sharpening: sharpen the lender when its target is sharpened. SSNF draws for each on
        its own, so that a patch may be sharper than its surroundings for no other reason.
      synthesis: how to make anomalies, or None.
    """

    rotation_degrees: float = 0.0
    sharpen: float = 0.0
    share_sharpening: bool = False
    synthesis: Synthesis | None = None

    def check(self) -> None:
        """Raises a UserError if a value is out of range."""
        if not self.rotation_degrees >= 0:
            word = f"data.rotation_degrees={self.rotation_degrees} is too small"
            raise UserError(f"{word}: use 0 or more")
        if not 0 <= self.sharpen <= 1:
            raise UserError(f"data.sharpen={self.sharpen} is no probability: use 0 to 1")
        if self.synthesis is None:
            return
        check_choice("synthesis.arrangement", self.synthesis.arrangement, ARRANGEMENTS)
        if self.synthesis.unchanged_as_negative and self.synthesis.arrangement != "pairs":
            why = "this method does not learn from pairs: set it to False"
            raise UserError(f"synthesis.unchanged_as_negative=True: {why}")
        threshold = self.synthesis.mask_threshold
        if not 0 <= threshold < 1:
            why = "masks lie in [0, 1]: use 0 or more, less than 1"
            raise UserError(f"synthesis.mask_threshold={threshold}: {why}")

    @property
    def varies(self) -> bool:
        """Whether an image looks different at every visit."""
        return bool(self.rotation_degrees or self.sharpen or self.synthesis)

    def rows(
        self, images: ResizedImages, index: int, label: int, count: int, rng: np.random.Generator
    ) -> tuple[Row, ...]:
        """Makes what one visit adds to a batch.

        Args:
          images: the set.
          index: the record that is visited.
          label: that of the record.
          count: records of the set.
          rng: source of all randomness.

        Returns:
          One row, or with ``"pairs"`` the clean and the synthetic one.
        """
        image, mask = images.record(index)
        if self.rotation_degrees:
            degrees = (2 * rng.random() - 1) * self.rotation_degrees
            image, mask = (transforms.rotate(x, degrees) for x in (image, mask))
        sharpened = self._draws_sharp(rng)
        clean = Row(transforms.sharpen(image) if sharpened else image, mask, label, 1.0)
        if self.synthesis is None:
            return (clean,)
        lender = _lender(self.synthesis, images, index, count, rng)
        if not self.share_sharpening:
            sharpened = self._draws_sharp(rng)
        if sharpened:
            lender = transforms.sharpen(lender)
        made = _row(clean, self.synthesis.make(clean.image, lender, rng), self.synthesis)
        return (clean, made) if self.synthesis.arrangement == "pairs" else (made,)

    def _draws_sharp(self, rng: np.random.Generator) -> bool:
        return bool(self.sharpen) and rng.random() < self.sharpen


def _lender(
    synthesis: Synthesis, images: ResizedImages, index: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws who lends; its image has the size that the synthesiser wants, from the original."""
    size = int(lender_scale(synthesis.make) * images.size)
    if synthesis.lenders:
        return images.file(synthesis.lenders[int(rng.integers(len(synthesis.lenders)))], size)
    return images.image(draw_source(index, count, rng), size)


def _row(clean: Row, made: Synthetic, synthesis: Synthesis) -> Row:
    """A synthetic row; an unchanged one that should be half of a pair counts only if asked to."""
    anomalous = made.changed or synthesis.unchanged_as_negative
    weight = 1.0 if anomalous or synthesis.arrangement == "mixture" else 0.0
    mask = clean.mask | (made.mask > synthesis.mask_threshold)
    return Row(made.image, mask, max(clean.label, int(anomalous)), weight)


def lender_files(folder: str | Path) -> list[Path]:
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
        found += _files.images(Path(here))
    if not found:
        raise UserError(f"synthesis.lenders='{root}' holds no images: give another folder")
    return sorted(found)
