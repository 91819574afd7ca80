"""From feature maps to scores: the only place that computes one.

Flows run on the device; what comes back to the host are the small likelihood maps.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from threadpoolctl import ThreadpoolController
from tqdm import tqdm

from flowad_jax import ops, parallel
from flowad_jax.errors import UserError
from flowad_jax.lookup import check_choice
from flowad_jax.parallel import Devices
from flowad_jax.types import Batch, Calibration, Method, Scores, Tree

IMAGE_SCORES = ("method", "max", "top")
# Resizing is many small matrix products: threads of BLAS spend their time waiting for each other.
_ONE_THREAD = partial(ThreadpoolController().limit, limits=1, user_api="blas")


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

    def __init__(
        self,
        method: Method,
        image_size: tuple[int, int],
        image_score: str = "method",
        top: float = 0.03,
    ):
        """Prepares the jitted forward pass.

        Args:
          method: gives likelihoods and makes scores of them.
          image_size: (H, W) of the anomaly maps.
          image_score: what the score of an image is: the ``"method"``'s own, the ``"max"`` of its
            anomaly map, or the mean of the ``"top"`` share of it.
          top: that share.

        Raises:
          UserError: an option has a value that does not exist.
        """
        check_choice("eval.image_score", image_score, IMAGE_SCORES)
        if not 0 < top <= 1:
            raise UserError(f"eval.top={top}: a share of the pixels lies above 0 and up to 1")
        self._method = method
        self._image_size = image_size
        self._image_score = image_score
        self._top = top
        self._forward = jax.jit(method.log_probs)

    def on(self, devices: Devices) -> Evaluator:
        """The same on several devices, each of which sees its images alone."""
        if devices.count == 1:
            return self
        spread = copy.copy(self)
        spread._forward = jax.jit(devices.by_rows(self._method.log_probs))
        return spread

    def log_probs(
        self, variables: Mapping[str, Tree], maps: tuple[jax.Array, ...]
    ) -> tuple[np.ndarray, ...]:
        """Likelihood maps (B, h, w) of all scales for one batch of feature maps."""
        return tuple(parallel.gather(scale) for scale in self._forward(variables, maps))

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
                real = parallel.gather(batch.weight) > 0
                out = self.log_probs(variables, feature_maps)
                maps.append(tuple(scale[real] for scale in out))
                masks.append(parallel.gather(batch.mask)[real])
                bar.update(int(real.sum()))
        scales = tuple(np.concatenate(scale) for scale in zip(*maps, strict=True))
        return Likelihoods(scales, np.concatenate(masks))

    def calibrate(self, normal: Likelihoods) -> Calibration:
        """Fits the calibration on normal images."""
        with _ONE_THREAD():
            return self._method.calibrate(normal.maps, self._image_size)

    def scores(self, seen: Likelihoods, calibration: Calibration | None) -> Scores:
        """Aggregates to maps and image scores; without calibration in the published form."""
        return self.aggregate(seen.maps, calibration)

    def aggregate(
        self,
        log_probs: Sequence[np.ndarray],
        calibration: Calibration | None,
        image_size: tuple[int, int] | None = None,
    ) -> Scores:
        """Makes scores of likelihood maps, see `scores`.

        Args:
          log_probs: L arrays (N, h, w).
          calibration: from normal images; None for the method's published form.
          image_size: (H, W) of the anomaly maps, if it is not the evaluator's.
        """
        with _ONE_THREAD():
            found = self._method.aggregate(log_probs, image_size or self._image_size, calibration)
        if self._image_score == "method":
            return found
        share = 0.0 if self._image_score == "max" else self._top
        return found._replace(image=ops.mean_of_top(found.pixel, share))
