"""Proof of a conversion: likelihoods and anomaly maps beside those of PyTorch's network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import jax
import numpy as np

from flowad_jax.conversion.settings import scale_order
from flowad_jax.errors import UserError
from flowad_jax.training.experiment import Experiment
from flowad_jax.types import Batch
from flowad_jax.weights.detectors import TorchDetector

LIMIT = 1e-4  # of the largest value
IMAGES = 4  # enough to see a difference; PyTorch's side takes seconds for each


def compare(
    found: TorchDetector,
    system: Experiment,
    variables: Any,
    peer: Callable[[list[np.ndarray]], Sequence[np.ndarray]],
) -> dict[str, Any]:
    """Compares on some normal images.

    Args:
      found: the checkpoint.
      system: the experiment, with the right clamp.
      variables: the converted detector.
      peer: log-likelihood maps (B, h, w) of the original from feature maps (B, h, w, C), in the
        order of the file; the image comes last if the method needs it.

    Returns:
      Largest difference over largest value: ``log_likelihood`` of every scale, ``anomaly_map``.

    Raises:
      UserError: one is above `LIMIT`.
    """
    with closing(system.features.calibration.epoch(0)) as batches:
        maps, image = next(iter(batches))[:2]
    batch = Batch(*jax.tree.map(lambda x: np.asarray(x[:IMAGES]), (maps, image)))
    order = scale_order(found.dialect, system.encoder.spec, len(batch.maps))
    given = [batch.maps[order.index(scale)] for scale in range(len(order))]
    out = peer(given if batch.image is None else [*given, batch.image])
    joined = len(out) < len(order)  # to one map of likelihoods
    theirs = [np.asarray(out[scale]) for scale in (range(len(out)) if joined else order)]
    ours = [np.asarray(x) for x in jax.jit(system.method.log_probs)(variables, batch)]
    pixels = [system.method.aggregate(scales, system.image_size).pixel for scales in (ours, theirs)]
    pairs = [*zip(ours, theirs, strict=True), pixels]
    *scales, pixel = [float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs]
    worst = max(*scales, pixel)
    if not worst <= LIMIT:
        raise UserError(
            f"--verify: PyTorch's likelihoods or maps differ by {worst:.2g} of their largest value "
            f"(at most {LIMIT:g} is rounding): nothing was written; please report this file"
        )
    return {"images": len(batch.maps[0]), "log_likelihood": scales, "anomaly_map": pixel}


def shown(report: dict[str, Any]) -> str:
    """The comparison in one line."""
    scales = ", ".join(f"{value:.1e}" for value in report["log_likelihood"])
    return (
        f"verified on {report['images']} images: log-likelihoods differ by {scales}, anomaly maps "
        f"by {report['anomaly_map']:.1e} of the largest value"
    )
