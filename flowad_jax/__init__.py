"""Finding defects in images with normalizing flows, in JAX."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowad_jax.serving.detector import Detector

__version__ = "0.1.0"


def load(
    workdir: str | Path,
    false_alarm_rate: float | None = None,
    allow_import: Collection[str] = (),
) -> Detector:
    """Loads a trained detector, see `flowad_jax.serving.detector.load`."""
    from flowad_jax.serving import detector

    return detector.load(workdir, false_alarm_rate, allow_import)
