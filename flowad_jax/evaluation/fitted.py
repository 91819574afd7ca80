"""What a detector learns from normal images after training: constants of scores, and quantiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.types import Calibration


class Fitted(NamedTuple):
    """Belongs to one state of a method; kept in its checkpoint.

    Attributes:
      calibration: from training images, so that a score depends on its image alone.
      image: (n,) scores of held-out normal images, which set thresholds; n may be 0.
      peak: (n,) the largest values of their anomaly maps.
    """

    calibration: Calibration
    image: np.ndarray
    peak: np.ndarray


def to_json(fitted: Fitted) -> dict[str, Any]:
    """Returns plain lists and numbers; floats survive exactly."""
    values = {**fitted.calibration._asdict(), "image": fitted.image, "peak": fitted.peak}
    return {name: np.asarray(value, np.float64).tolist() for name, value in values.items()}


def from_json(values: Mapping[str, Any]) -> Fitted:
    """Reverses `to_json`."""
    arrays = {name: np.asarray(value, np.float64) for name, value in values.items()}
    calibration = Calibration(*(arrays[name] for name in Calibration._fields))
    return Fitted(calibration, arrays["image"], arrays["peak"])
