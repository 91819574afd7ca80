"""A test set for those who have no defects: normal images, as they are and with synthetic ones.

What is measured on it says how well a detector tells pasted anomalies from normal images, and
nothing about real defects. Whoever shows such a figure has to call it synthetic.
"""

from __future__ import annotations

import numpy as np

from flowad_jax.canvas import Canvas
from flowad_jax.data.record import GOOD, Record, Source
from flowad_jax.data.resized import image_shape, resized_record
from flowad_jax.data.transforms import resize_image, resize_mask
from flowad_jax.errors import UserError
from flowad_jax.synthesis import draw_source, make, source_scale

_LEAST = 20  # anomalies at least, so that a few normal images still say something
_ATTEMPTS = 20


class SyntheticTest:
    """A ``record.Source`` of normal images and, behind them, as many or more with anomalies.

    Attributes:
      normal: source of the normal images.
    """

    has_masks = True

    def __init__(self, normal: Source, kind: str, seed: int, canvas: Canvas, filter: str):
        """Makes nothing yet; the same seed makes the same anomalies.

        Args:
          normal: images that were neither trained on nor set a threshold.
          kind: of `flowad_jax.synthesis.KINDS`.
          seed: of the anomalies.
          canvas: on which they are made.
          filter: Pillow's filter for resizing images.

        Raises:
          UserError: there is no such kind.
        """
        self.normal, self._make, self._kind = normal, make(kind), kind
        self._seed, self._canvas, self._filter = seed, canvas, filter
        copies = max(1, -(-_LEAST // len(normal)))
        self._origins = [*range(len(normal))] * (1 + copies)
        anomalous = len(normal) * copies
        self.labels = np.repeat([0, 1], [len(normal), anomalous]).astype(np.int32)
        self.kinds = [GOOD] * len(normal) + [f"synthetic {kind}"] * anomalous
        made = enumerate(self._origins[len(normal) :], start=1)
        self.paths = [*normal.paths, *(f"{normal.paths[i]} ({kind} {n})" for n, i in made)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        """Returns a normal image at its own size, one with an anomaly on the canvas."""
        if index < len(self.normal):
            return self.normal[index]
        return self.resized(index, self._canvas, self._filter)

    def shape(self, index: int) -> tuple[int, ...]:
        """Returns the (H, W) of the image that a record is made from."""
        return image_shape(self.normal, self._origins[index])

    def resized(self, index: int, canvas: Canvas, filter: str) -> Record:
        """Returns a record with image and mask on a canvas."""
        origin = self._origins[index]
        record = resized_record(self.normal, origin, self._canvas, self._filter)
        if index >= len(self.normal):
            image, mask = self._anomaly(record.image, index, origin)
            kind, path = self.kinds[index], self.paths[index]
            record = Record(image, mask, 1, kind, path)
        if canvas == self._canvas:
            return record
        image, mask = resize_image(record.image, canvas, filter), resize_mask(record.mask, canvas)
        return record._replace(image=image, mask=mask)

    def _anomaly(self, image: np.ndarray, index: int, origin: int) -> tuple[np.ndarray, np.ndarray]:
        """Changes an image with material of another one; returns it with the mask."""
        rng = np.random.default_rng([self._seed, 2, index])
        larger = self._canvas.scaled(source_scale(self._make))
        for _ in range(_ATTEMPTS):
            lender = draw_source(origin, len(self.normal), rng)
            material = resized_record(self.normal, lender, larger, self._filter).image
            made = self._make(image, material, rng)
            if made.changed and (mask := made.mask > 0).any():
                return made.image, mask
        raise UserError(
            f"data.synthetic_test='{self._kind}' changes nothing in '{self.normal.paths[origin]}': "
            "take another kind"
        )
