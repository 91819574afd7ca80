"""Scores the test images with a state, measured against normal images or in a paper's own form."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.detector.calibration import Fitted, decisions
from flowad_jax.evaluation import mask_resolution, metrics
from flowad_jax.evaluation.decisions import Decisions
from flowad_jax.evaluation.padding import hide_padding, unpadded
from flowad_jax.evaluation.scores import Likelihoods, mean_scores
from flowad_jax.features.batches import Features, FeatureSets
from flowad_jax.report.scored_images import SYNTHETIC, WITHOUT_METRICS
from flowad_jax.training.experiment import Experiment
from flowad_jax.types import Scores, TrainState


class Scored(NamedTuple):
    """Scores of the test set and what they amount to.

    Attributes:
      scores: image scores and anomaly maps.
      masks: (N, H, W) bool at network size, or None.
      compared: masks or None, maps, and maps for AUPRO or None, of the sizes of the metrics.
      metrics: fractions of 1, NaN where undefined; none without labelled test images.
      seconds: from images, or from where their features are kept, to scores; without metrics.
      fitted: what scores were measured against; None in the published form.
      decisions: what decides, without images in the published form.
      p_values: of the image scores (N,); None without held-out images to compare them with.
    """

    scores: Scores
    masks: np.ndarray | None
    compared: tuple[Any, ...]
    metrics: dict[str, float]
    seconds: float
    fitted: Fitted | None
    decisions: Decisions
    p_values: np.ndarray | None

    @property
    def flagged(self) -> np.ndarray | None:
        """What is called anomalous (N,); None where nothing can be decided."""
        return self.decisions.anomalous(self.scores.image, self.p_values)


def fit(experiment: Experiment, trained: TrainState, features: FeatureSets) -> Fitted:
    """Fits the calibration on training images and scores the held-out ones with it."""
    count = len(experiment.calibration_rows)
    seen = _likelihoods(experiment, trained, features.calibration, count, "fit")
    calibration = experiment.evaluator.calibrate(seen.maps)
    if features.holdout is None:
        return Fitted(calibration, np.zeros(0), np.zeros(0))
    seen = _likelihoods(experiment, trained, features.holdout, len(experiment.holdout), "fit")
    scores = experiment.evaluator.scores(seen.maps, calibration)
    return Fitted(calibration, scores.image, scores.pixel.max(axis=(1, 2)))


def score(
    experiment: Experiment,
    trained: TrainState,
    features: FeatureSets,
    fitted: Fitted | None = None,
    threshold: float | None = None,
) -> Scored:
    """Scores the test images in the form that the config names.

    Calibrated scores are measured against what is ``fitted``, or else is fitted first. A
    ``threshold`` decides in the place of the config's false-alarm rate.
    """
    if experiment.config.eval.scoring == "calibrated" and fitted is None:
        fitted = fit(experiment, trained, features)
    return score_together(experiment, [(trained, fitted)], features, threshold)


def score_together(
    experiment: Experiment,
    parts: Sequence[tuple[TrainState, Fitted | None]],
    features: FeatureSets,
    threshold: float | None = None,
) -> Scored:
    """Scores the test images with the detectors of all folds, or with one.

    Scores and maps are means; every state comes with what was fitted with it.
    """
    calibrated = experiment.config.eval.scoring == "calibrated"
    started, test = time.perf_counter(), experiment.test
    by_part, known = [], []
    for trained, fitted in parts:
        seen = _likelihoods(experiment, trained, features.test, len(test), "evaluate")
        known += [fitted] if calibrated and fitted else []
        constants = fitted.calibration if calibrated and fitted else None
        by_part.append(experiment.evaluator.scores(seen.maps, constants))
    scores = mean_scores(by_part)
    seconds = features.test.seconds + time.perf_counter() - started
    masks = seen.masks if test.has_masks else None
    compared: tuple[Any, ...] = (masks, scores.pixel, scores.overlap)
    if masks is not None and experiment.config.eval.mask_size == "native":
        truth = experiment.native_masks
        sizes = [mask.shape for mask in truth]
        pixel, overlap = (
            maps if maps is None else mask_resolution.resized(maps, sizes, experiment.canvas)
            for maps in compared[1:]
        )
        compared = (truth, pixel, overlap)
    elif masks is not None and (shapes := features.test.loader.padded_shapes):
        compared = tuple(unpadded(one, experiment.canvas, shapes) for one in compared)
    values = metrics.evaluate(test.labels, scores.image, *compared)
    if experiment.scored_images in WITHOUT_METRICS:
        values = {}
    elif experiment.scored_images == "synthetic":  # nobody shall take them for real ones
        values = {f"{SYNTHETIC}{name}": value for name, value in values.items()}
    found = decisions(known, experiment.config, threshold)
    p_values = found.p_values(np.stack([one.image for one in by_part])) if known else None
    fitted = known[0] if known else None
    return Scored(scores, masks, compared, values, seconds, fitted, found, p_values)


def _likelihoods(
    experiment: Experiment, trained: TrainState, features: Features, count: int, title: str
) -> Likelihoods:
    variables = {"params": trained.params, "buffers": trained.buffers}
    seen = experiment.evaluator.likelihoods(variables, features.epoch(0), count, title)
    if shapes := features.loader.padded_shapes:
        seen = seen._replace(maps=hide_padding(seen.maps, experiment.canvas, shapes))
    return seen
