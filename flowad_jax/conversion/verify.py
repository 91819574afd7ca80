"""Proof of a conversion: likelihoods and anomaly maps beside those of PyTorch's network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import jax
import numpy as np

from flowad_jax.conversion.settings import scale_order
from flowad_jax.errors import UserError
from flowad_jax.training.system import System
from flowad_jax.weights.detectors import Found

LIMIT = 1e-4  # of the largest value
IMAGES = 4  # enough to see a difference; PyTorch's side takes seconds for each

Maps = list[np.ndarray]


def compare(
    found: Found, system: System, variables: Any, peer: Callable[[Maps], Sequence[np.ndarray]]
) -> dict[str, Any]:
    """Compares on some normal images.

    Args:
      found: the checkpoint.
      system: the run, with the right clamp.
      variables: the converted detector.
      peer: log-likelihood maps (B, h, w) of the original from feature maps (B, h, w, C), in the
        order of the file; what a method sees beside them comes last.

    Returns:
      Largest difference over largest value: ``log_likelihood`` of every scale, ``anomaly_map``.

    Raises:
      UserError: one is above `LIMIT`.
    """
    with closing(system.features.calibration.epoch(0)) as batches:
        encoded, _ = next(iter(batches))
    maps = [np.asarray(x[:IMAGES], np.float32) for x in encoded]
    order = scale_order(found.dialect, system.encoder.spec, len(found.channels))
    theirs = _original(peer, maps, order)
    ours = [np.asarray(x) for x in jax.jit(system.method.log_probs)(variables, tuple(maps))]
    size = (system.image_size, system.image_size)
    both = [system.method.aggregate(scales, size).pixel for scales in (ours, theirs)]
    scales = [_difference(*pair) for pair in zip(ours, theirs, strict=True)]
    pixels = _difference(*both)
    worst = max(*scales, pixels)
    if not worst <= LIMIT:
        raise UserError(
            f"--verify: PyTorch's likelihoods or maps differ by {worst:.2g} of their largest value "
            f"(at most {LIMIT:g} is rounding): nothing was written; please report this file"
        )
    return {"images": len(maps[0]), "log_likelihood": scales, "anomaly_map": pixels}


def _original(
    peer: Callable[[Maps], Sequence[np.ndarray]], maps: Maps, order: tuple[int, ...]
) -> list[np.ndarray]:
    """The original's likelihood maps, in our order."""
    scales = [maps[order.index(theirs)] for theirs in range(len(order))]
    out = peer([*scales, *maps[len(order) :]])
    return [np.asarray(out[theirs]) for theirs in order]


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def shown(report: dict[str, Any]) -> str:
    """The comparison in one line."""
    scales = ", ".join(f"{value:.1e}" for value in report["log_likelihood"])
    return (
        f"verified on {report['images']} images: log-likelihoods differ by {scales}, anomaly maps "
        f"by {report['anomaly_map']:.1e} of the largest value"
    )
