"""From feature maps to scores: the only place that computes one.

Flows run on the device; what comes back to the host are the small likelihood maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from threadpoolctl import ThreadpoolController
from tqdm.auto import tqdm

from flowad_jax import parallel
from flowad_jax.errors import UserError
from flowad_jax.lookup import check_choice
from flowad_jax.ops import arrays
from flowad_jax.parallel import ALONE, Devices
from flowad_jax.types import Batch, Calibration, Method, Scores, Tree

IMAGE_SCORES = ("method", "max")  # or a share of the pixels
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
        devices: Devices = ALONE,
    ):
        """Prepares the jitted forward pass.

        Args:
          method: gives likelihoods and makes scores of them.
          image_size: (H, W) of the anomaly maps.
          image_score: what the score of an image is: the ``"method"``'s own, the ``"max"`` of its
            anomaly map, or the mean of its most anomalous pixels, whose share it is: ``"0.03"``.
          devices: each sees its images alone.

        Raises:
          UserError: an option has a value that does not exist.
        """
        self._method, self._image_size, self._image_score = method, image_size, image_score
        self._share = _share(image_score)
        self._forward = jax.jit(devices.shard_rows(method.log_probs))

    def on(self, devices: Devices) -> Evaluator:
        """The same on several devices."""
        if devices.count == 1:
            return self
        return Evaluator(self._method, self._image_size, self._image_score, devices)

    def log_probs(
        self, variables: Mapping[str, Tree], batch: Batch
    ) -> tuple[Float[np.ndarray, "B h w"], ...]:
        """Likelihood maps of all scales for one batch, of which maps and image count."""
        out = self._forward(variables, Batch(batch.maps, batch.image))
        return tuple(parallel.gather(scale) for scale in out)

    def likelihoods(
        self, variables: Mapping[str, Tree], batches: Iterable[Batch], total: int, title: str
    ) -> Likelihoods:
        """Runs batches with feature maps through the flows; padding rows are left out.

        Args:
          variables: ``params`` and ``buffers`` of the method.
          batches: in order.
          total: number of images, for the progress bar.
          title: label of the progress bar.
        """
        maps: list[tuple[np.ndarray, ...]] = []
        masks: list[np.ndarray] = []
        with tqdm(total=total, desc=title, unit="img", disable=None, leave=False) as bar:
            for batch in batches:
                real = parallel.gather(batch.weight) > 0
                maps.append(tuple(scale[real] for scale in self.log_probs(variables, batch)))
                masks.append(parallel.gather(batch.mask)[real])
                bar.update(int(real.sum()))
        scales = tuple(np.concatenate(scale) for scale in zip(*maps, strict=True))
        return Likelihoods(scales, np.concatenate(masks))

    def calibrate(self, log_probs: Sequence[Float[np.ndarray, "N h w"]]) -> Calibration:
        """Fits the calibration on likelihood maps of normal images."""
        with _ONE_THREAD():
            return self._method.calibrate(log_probs, self._image_size)

    def scores(
        self,
        log_probs: Sequence[Float[np.ndarray, "N h w"]],
        calibration: Calibration | None,
        image_size: tuple[int, int] | None = None,
    ) -> Scores:
        """Makes anomaly maps and image scores of likelihood maps.

        Args:
          log_probs: of L scales.
          calibration: from normal images; None for the method's published form.
          image_size: (H, W) of the anomaly maps, if it is not the evaluator's.
        """
        with _ONE_THREAD():
            found = self._method.aggregate(log_probs, image_size or self._image_size, calibration)
        if self._share is None:
            return found
        return found._replace(image=arrays.mean_of_top(found.pixel, self._share))


def extreme_ties(scores: Float[np.ndarray, " N"]) -> list[str]:
    """Says at which end more than two image scores are the same number, which ranks nothing."""
    found: list[str] = []
    for which, end in (("highest", np.max), ("lowest", np.min)):
        count = int(np.sum(scores == end(scores))) if len(scores) else 0
        if count > 2 and not (found and count == len(scores)):
            found.append(f"{count} of {len(scores)} share the {which} score, {end(scores):.6g}")
    return found


def mean_scores(found: Sequence[Scores]) -> Scores:
    """Returns the means over several detectors of the same images."""
    if len(found) == 1:
        return found[0]
    overlaps = [scores.overlap for scores in found if scores.overlap is not None]
    image, pixel = (np.mean(x, axis=0) for x in zip(*(scores[:2] for scores in found), strict=True))
    return Scores(image, pixel, np.mean(overlaps, axis=0) if overlaps else None)


def _share(image_score: str) -> float | None:
    """The share of pixels whose mean is an image's score, 0 for the maximum; None: the method's."""
    if image_score in IMAGE_SCORES:
        return 0.0 if image_score == "max" else None
    try:
        share = float(image_score)
    except ValueError:
        check_choice("eval.image_score", image_score, (*IMAGE_SCORES, "0.03"))
        raise
    if not 0 < share <= 1:
        key = f"eval.image_score='{image_score}'"
        raise UserError(f"{key}: a share of the pixels lies above 0 and up to 1")
    return share
