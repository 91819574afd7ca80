"""Epochs of MSFlow with the encoder in every step and from the feature cache, for a process."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import config_dict

from benchmarks.performance.jobs import host_peak_bytes


def run(config: config_dict.ConfigDict, count: int) -> dict[str, Any]:
    """Trains ``count`` epochs each way from the same fresh state, with the parts of the loop.

    The first epoch, in which programs are compiled and images decoded, is left out of the medians.
    """
    from flowad_jax.training import feature_cache
    from flowad_jax.training.experiment import build
    from flowad_jax.training.optimizer import fresh_state
    from flowad_jax.training.step import make_train_step

    system = build(config)
    step = make_train_step(system.method, system.optimizer, system.schedule, config.train.clip_norm)
    images = _epochs(step, fresh_state(system), system.features.train, count)
    with tempfile.TemporaryDirectory() as workdir:
        kept = feature_cache.prepare(system, Path(workdir), lambda: None).train
        cached = _epochs(step, fresh_state(system), kept, count)
    np.testing.assert_allclose(cached["losses"], images["losses"], rtol=1e-4)
    cached["seconds_to_compute"] = kept.seconds
    return {
        "images": images,
        "cache": cached,
        "training_images": len(system.train),
        "steps": len(system.train_loader),
        "peak_bytes": host_peak_bytes(),
    }


def _epochs(step: Any, train_state: Any, features: Any, count: int) -> dict[str, Any]:
    """Seconds and mean loss of every epoch."""
    seconds, losses = [], []
    for epoch in range(count):
        started, found = time.perf_counter(), []
        with closing(features.epoch(epoch)) as batches:
            for batch in batches:
                train_state, metrics = step(train_state, batch)
                found.append(metrics["loss"])
        losses.append(float(np.mean(found)))  # waits for the last step
        seconds.append(time.perf_counter() - started)
    usual = statistics.median(seconds[1:] or seconds)
    return {"seconds": seconds, "losses": losses, "median_s": usual}


def text(found: dict[str, Any], step_seconds: float) -> str:
    """What was found, beside what the gradient steps of an epoch cost alone."""
    images, cached = found["images"], found["cache"]
    return (
        f"one epoch, {found['training_images']} images in {found['steps']} steps: "
        f"{images['median_s']:.1f} s with the encoder, {cached['median_s']:.1f} s from the cache "
        f"(computed once in {cached['seconds_to_compute']:.1f} s); the steps alone "
        f"{found['steps'] * step_seconds:.1f} s"
    )
