"""From feature maps to scores: the only place that computes one.

Flows run on the device; what comes back to the host are the small likelihood maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from flowad_jax.types import Batch, Calibration, Method, Scores, Tree


class Likelihoods(NamedTuple):
    """What the flows say about a set of images, in the order of the set.

    Attributes:
      maps: L arrays (N, h, w), nats per dimension.
      masks: (N, H, W) bool at network size.
    """

    maps: tuple[np.ndarray, ...]
    masks: np.ndarray


class Evaluator:
    """Scores image sets with one method; compiled once."""

    def __init__(self, method: Method, image_size: tuple[int, int]):
        """Prepares the jitted forward pass for maps of ``image_size`` (H, W)."""
        self._method = method
        self._image_size = image_size
        self._forward = jax.jit(method.log_probs)

    def likelihoods(
        self,
        variables: Mapping[str, Tree],
        features: Iterable[tuple[tuple[jax.Array, ...], Batch]],
        total: int,
        title: str,
    ) -> Likelihoods:
        """Runs all batches through the flows; padding rows are left out.

        Args:
          variables: ``params`` and ``constants`` of the method.
          features: feature maps (B, h, w, C) of L scales with their batch, in order.
          total: number of images, for the progress bar.
          title: label of the progress bar.
        """
        maps: list[tuple[np.ndarray, ...]] = []
        masks: list[np.ndarray] = []
        with tqdm(total=total, desc=title, unit="img", disable=None, leave=False) as bar:
            for feature_maps, batch in features:
                real = np.asarray(batch.weight) > 0
                out = self._forward(variables, feature_maps)
                maps.append(tuple(np.asarray(scale)[real] for scale in out))
                masks.append(np.asarray(batch.mask)[real])
                bar.update(int(real.sum()))
        scales = tuple(np.concatenate(scale) for scale in zip(*maps, strict=True))
        return Likelihoods(scales, np.concatenate(masks))

    def calibrate(self, normal: Likelihoods) -> Calibration:
        """Fits the calibration on normal images."""
        return self._method.calibrate(normal.maps, self._image_size)

    def scores(self, seen: Likelihoods, calibration: Calibration | None) -> Scores:
        """Aggregates to maps and image scores; without calibration in the transductive form."""
        return self._method.aggregate(seen.maps, self._image_size, calibration)
