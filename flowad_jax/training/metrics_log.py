"""What a run writes down while it goes: JSON lines, and numbers for its loggers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from flowad_jax import files, schema
from flowad_jax.schema import TEXT, integer, number, table
from flowad_jax.training import loggers
from flowad_jax.training.step import FEATURES

METRICS = "metrics.jsonl"
_ROW = table(
    {"kind": {"enum": ["train", "eval"]}, "step": integer(0), "epoch": integer(0)},
    {"scoring": TEXT} | {name: number() for name in ("holdout_loss", "image_auroc", "pixel_auroc")},
)


class MetricsLog:
    """Appends to ``metrics.jsonl`` and tells loggers."""

    def __init__(self, workdir: Path, step: int, config: config_dict.ConfigDict):
        """Opens the log of a run that stands at ``step``; later lines of a lost future go."""
        self._path = workdir / METRICS
        kept = [row for row in read(workdir) if row["step"] <= step]
        files.write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._loggers = loggers.open_all(config, workdir, step)

    def close(self) -> None:
        """Closes the loggers."""
        for logger in self._loggers:
            logger.close()

    def write(
        self, kind: str, step: int, epoch: int, values: dict[str, float], **labels: str
    ) -> None:
        """Adds a row of kind "train" or "eval": steps and epochs done, and finite numbers."""
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        row = {"kind": kind, "step": step, "epoch": epoch, **labels, **values}
        with files.writing(self._path), self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        for logger in self._loggers:
            logger.scalars({f"{kind}/{name}": value for name, value in values.items()}, step)


def read(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows written so far; a last line cut off by a crash is left out.

    Raises:
      UserError: another line is damaged, or none of ours.
    """
    path = workdir / METRICS
    return schema.read_lines(path, _ROW, "remove that line") if path.exists() else []


def chosen(workdir: Path, scoring: str) -> dict[str, dict[str, Any]]:
    """Metrics of the logged epoch that held-out normal images choose, and the test set would.

    The first is a result, the second a bound.
    """
    rows = [row for row in read(workdir) if row.get("scoring") == scoring]
    held_out = [row for row in rows if "holdout_loss" in row]
    tested = [row for row in rows if "image_auroc" in row]
    quality = lambda row: (row["image_auroc"], row.get("pixel_auroc", 0.0))  # noqa: E731
    found = {
        "validation": min(held_out, key=lambda row: row["holdout_loss"], default={}),
        "oracle": max(tested, key=quality, default={}),
    }
    hidden = ("kind", "step", "scoring")
    return {
        column: {key: value for key, value in row.items() if key not in hidden}
        for column, row in found.items()
    }


def numbers(metrics: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Returns what steps reported, as numbers that a checkpoint can keep."""
    return [
        {name: float(value) for name, value in step.items() if not name.startswith("finite")}
        for step in jax.device_get(metrics)
    ]


def explain_not_finite(metrics: dict[str, Any]) -> str:
    """Says what of a step is not finite, and what helps."""
    if not metrics.get(f"finite/{FEATURES}", True):
        return (
            "because feature maps of the encoder are NaN or infinite: look at encoder.weights "
            "and at the images, for the learning rate has no part in it"
        )
    losses = [k for k, v in metrics.items() if k.startswith("loss/") and not np.isfinite(v)]
    groups = [k for k, v in metrics.items() if k.startswith("finite/") and not v]
    named = [
        f"{title} {', '.join(name.partition('/')[2] for name in names)}"
        for title, names in {"phase": losses, "parameters of": groups}.items()
        if names
    ]
    return f"{', '.join(named)}: lower train.learning_rate"
