"""Scores the test images with a state, measured against normal images or in a paper's own form."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.evaluation import conformal, metrics, native
from flowad_jax.evaluation.evaluate import Likelihoods
from flowad_jax.evaluation.fitted import Fitted
from flowad_jax.features.batches import Features, FeatureSets
from flowad_jax.training.system import System
from flowad_jax.types import Scores, TrainState


class Scored(NamedTuple):
    """Scores of the test set and what they amount to.

    Attributes:
      scores: image scores and anomaly maps.
      masks: (N, H, W) bool at network size, or None.
      metrics: fractions of 1, NaN where undefined.
      seconds: from images, or from where their features are kept, to scores; without metrics.
      fitted: what scores were measured against; None in the published form.
    """

    scores: Scores
    masks: np.ndarray | None
    metrics: dict[str, float]
    seconds: float
    fitted: Fitted | None

    @property
    def p_values(self) -> np.ndarray | None:
        """Of the image scores (N,); None without held-out images to compare them with."""
        if self.fitted is None or not len(self.fitted.image):
            return None
        return conformal.p_values(self.scores.image, self.fitted.image)


def fit(system: System, trained: TrainState, features: FeatureSets) -> Fitted:
    """Fits the calibration on training images and scores the held-out ones with it."""
    calibration = system.evaluator.calibrate(
        _likelihoods(system, trained, features.calibration, len(system.calibration_rows), "fit")
    )
    if features.holdout is None:
        return Fitted(calibration, np.zeros(0), np.zeros(0))
    seen = _likelihoods(system, trained, features.holdout, len(system.holdout), "fit")
    scores = system.evaluator.scores(seen, calibration)
    return Fitted(calibration, scores.image, scores.pixel.max(axis=(1, 2)))


def score(
    system: System, trained: TrainState, features: FeatureSets, fitted: Fitted | None
) -> Scored:
    """Scores the test images with the parameters of a state; None: in the published form."""
    started = time.perf_counter()
    seen = _likelihoods(system, trained, features.test, len(system.test), "evaluate")
    scores = system.evaluator.scores(seen, fitted.calibration if fitted else None)
    seconds = features.test.seconds + time.perf_counter() - started
    masks = seen.masks if system.test.has_masks else None
    values = metrics.evaluate(system.test.labels, scores.image, *_pixels(system, scores, masks))
    return Scored(scores, masks, values, seconds, fitted)


def score_as_asked(
    system: System, trained: TrainState, features: FeatureSets, fitted: Fitted | None = None
) -> Scored:
    """Scores in the form that the config names; ``fitted`` is what there is of it already."""
    if system.config.eval.scoring != "calibrated":
        return score(system, trained, features, None)
    return score(system, trained, features, fitted or fit(system, trained, features))


def _pixels(system: System, scores: Scores, masks: np.ndarray | None) -> tuple[Any, Any, Any]:
    """Masks, maps and maps for AUPRO, at the size at which the config wants them compared."""
    if masks is None or system.config.eval.mask_size == "network":
        return masks, scores.pixel, scores.overlap
    truth = system.native_masks
    overlap = None if scores.overlap is None else native.resized(scores.overlap, truth)
    return truth, native.resized(scores.pixel, truth), overlap


def _likelihoods(
    system: System, trained: TrainState, features: Features, count: int, title: str
) -> Likelihoods:
    variables = {"params": trained.params, "constants": trained.constants}
    return system.evaluator.likelihoods(variables, features.epoch(0), count, title)
