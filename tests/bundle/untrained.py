"""Detectors of every method that were not trained, with thresholds from noise: quick to make."""

from pathlib import Path

import jax
import numpy as np

from flowad_jax.detector.calibration import Fitted, Part
from flowad_jax.detector.model import build_model
from flowad_jax.inference.predictor import Predictor
from tests.conftest import tiny_recipe

SIZE = (32, 48)


def images(count, seed=0, size=(40, 70)):
    """Grey noise, some of it with a bright square."""
    rng = np.random.default_rng(seed)
    found = rng.normal(110, 12, (count, *size)).clip(0, 255).astype(np.uint8)
    found[::2, 8:20, 12:30] = 250
    return [np.repeat(one[..., None], 3, axis=-1) for one in found]


def predictor(method, fit="stretch", parts=1, image_score="method"):
    """Returns a `Predictor` of so many parts with a tiny encoder."""
    config = tiny_recipe(Path("nowhere"), method)
    config.data.image_size, config.data.fit = SIZE, fit
    config.eval.image_score, config.eval.false_alarm_rate = image_score, 0.2
    config.eval.calibration = "cross" if parts > 1 else "split"
    model = build_model(config)
    return Predictor(model, [_part(model, seed) for seed in range(parts)])


def _part(model, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=(4, *SIZE, 3)).astype(np.float32)
    batch = model.encode(model.encoder.variables, pixels)
    drawn = model.method.init(jax.random.key(seed), batch)
    # Away from the first parameters, where offsets and some nets do nothing.
    moved = jax.tree.map(lambda x: x + 0.03 * rng.normal(size=x.shape), drawn["params"])
    if "projection" in moved:  # else all latents are near 0, and so are the differences of maps
        moved["projection"] = jax.tree.map(lambda x: 10 * x, moved["projection"])
    variables = {**drawn, "params": jax.tree.map(np.float32, moved)}
    log_probs = model.evaluator.log_probs(variables, batch)
    calibration = model.evaluator.calibrate(log_probs)
    scores = model.evaluator.scores(log_probs, calibration)
    return Part(variables, Fitted(calibration, scores.image, scores.pixel.max(axis=(1, 2))))
