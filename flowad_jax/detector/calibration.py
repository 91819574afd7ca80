"""What a detector learns from normal images after training: constants of scores, and quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import config_dict

from flowad_jax import schema
from flowad_jax.errors import UserError
from flowad_jax.evaluation.decisions import Decisions
from flowad_jax.types import Calibration, Tree

_NUMBERS = schema.array(schema.number())
SCHEMA = schema.table(
    {
        "scale_max": schema.array(schema.number(), least=1),
        "map_max": {
            "anyOf": [schema.number(), schema.array(schema.number(), least=1)],
            "description": "a finite number or a list of them",
        },
        "image": _NUMBERS,
        "peak": _NUMBERS,
    },
    {"form": {"enum": [0, 1], "description": "0 or 1"}},
    others=False,
)


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


class Part(NamedTuple):
    """A trained state of the method, and what was fitted with it."""

    variables: Tree
    fitted: Fitted


def decisions(
    folds: Sequence[Fitted], config: config_dict.ConfigDict, threshold: float | None = None
) -> Decisions:
    """Returns what decides by the held-out images of all folds, see `Decisions`."""
    return Decisions(
        [fold.image for fold in folds],
        [fold.peak for fold in folds],
        config.eval.false_alarm_rate,
        config.eval.calibration,
        threshold,
    )


def to_json(fitted: Fitted) -> dict[str, Any]:
    """Returns plain lists and numbers; floats survive exactly.

    Raises:
      UserError: a number is NaN or infinite, so that it measures nothing.
    """
    named = {**fitted.calibration._asdict(), "image": fitted.image, "peak": fitted.peak}
    arrays = {name: np.asarray(value, np.float64) for name, value in named.items()}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise UserError(
                f"the detector gives NaN or infinite values for normal images ({name}): train "
                "with a lower train.learning_rate, or check what was converted"
            )
    return {name: values.tolist() for name, values in arrays.items()}


def from_json(values: Mapping[str, Any]) -> Fitted:
    """Reverses `to_json`; the values are such as `SCHEMA` describes."""
    arrays = {name: np.asarray(value, np.float64) for name, value in values.items()}
    constants = {name: arrays[name] for name in Calibration._fields if name in arrays}
    return Fitted(Calibration(**constants), arrays["image"], arrays["peak"])


def check_shapes(fitted: Fitted, like: Calibration, file: Path) -> None:
    """Raises a UserError if a part has other shapes than ``like``, a calibration by the method."""
    found = {**fitted.calibration._asdict(), "peak": fitted.peak}
    for name, right in {**like._asdict(), "peak": fitted.image}.items():
        if np.shape(found[name]) != np.shape(right):
            raise UserError(
                f"{file}: fitted.{name} has shape {np.shape(found[name])}, must be "
                f"{np.shape(right)}: it was fitted with another detector; train anew"
            )
