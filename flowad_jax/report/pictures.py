"""Pictures of a test set: panels of the easiest and hardest images, curves, score distributions.

This file decides what to show, `figures.py` and `curves.py` how it looks. matplotlib is imported
with the first picture: training need not wait for it.
"""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowad_jax import files
from flowad_jax.report.formats import plural
from flowad_jax.report.scored_images import OUTCOMES, Limits
from flowad_jax.types import Scores

SAMPLE = 1 << 21  # pixels from which the colour limits are estimated
TYPICAL = (0.01, 0.999)  # between these quantiles a pixel of a good image is nothing unusual


def save_panels(
    directory: str | os.PathLike[str],
    records: Any,
    maps: np.ndarray,
    scores: np.ndarray,
    threshold: float | None = None,
    per_kind: int = 2,
) -> list[str]:
    """Draws image, mask, anomaly map and overlay in rows, one picture per kind of defect.

    A kind shows its highest and its lowest scoring images; the last picture shows the good images
    that score highest. All maps share one colour scale, whose middle is the 99.9 % quantile of
    the pixels of good images: what is bright is brighter than good images are.

    Args:
      directory: folder for the pictures; created where it is missing.
      records: N records, see ``data.record.Source``; only the chosen ones are decoded. Images may
        have another size than the maps.
      maps: (N, H, W) anomaly maps.
      scores: (N,) image scores.
      threshold: image score above which an image counts as anomalous, if one was fixed.
      per_kind: images taken from either end of a kind.

    Returns:
      The written paths relative to the parent of ``directory``, with forward slashes.

    Raises:
      UserError: the folder cannot be written.
    """
    from flowad_jax.report import figures

    scores, labels, kinds = np.asarray(scores), np.asarray(records.labels), list(records.kinds)
    limits = colour_limits(maps, labels)
    written = []
    for number, (title, chosen) in enumerate(_choose(labels, kinds, scores, per_kind)):
        figure, rows = figures.panel(title, len(chosen), maps.shape[1:], limits)
        for axes, index in zip(rows, chosen, strict=True):
            record = records[index]
            text = _meaning(index, labels, scores)
            alarm = None if threshold is None else bool(scores[index] > threshold)
            outcome = "" if alarm is None else OUTCOMES[record.label, alarm][0]
            figures.caption(
                axes[0], record.kind, text, outcome, re.split(r"[\\/]", record.path)[-1]
            )
            figures.row(axes[1:], record.image, record.mask, maps[index], limits)
        name = kinds[chosen[0]] if labels[chosen[0]] else "false-alarms"
        written.append(_save(figure, Path(directory) / f"panels_{number:02d}_{slug(name)}.png"))
    return written


def save_roc(
    path: str | os.PathLike[str],
    labels: np.ndarray,
    scores: np.ndarray,
    masks: Any,
    maps: Any,
    overlap: Any = None,
) -> str:
    """Draws the ROC curve over images and, given masks, the pixel ROC and the PRO curve.

    The arguments are those of ``metrics.evaluate``: arrays, or lists of images of several sizes.
    Returns the path as ``save_panels`` does.
    """
    from flowad_jax.report import curves

    scored = Scores(np.asarray(scores), maps, overlap)
    (figure,) = curves.rate_curves(np.asarray(labels), scored, masks)
    return _save(figure, Path(path))


def save_histogram(
    path: str | os.PathLike[str],
    labels: np.ndarray,
    kinds: Sequence[str],
    scores: np.ndarray,
    threshold: float | None = None,
) -> str:
    """Draws how the image scores are distributed: good against anomalous, and kind by kind.

    Args:
      path: the picture.
      labels: (N,) 0 for good, 1 for anomalous, -1 for unknown.
      kinds: N names of the kinds.
      scores: (N,) image scores.
      threshold: image score above which an image counts as anomalous, if one was fixed.

    Returns:
      The path as ``save_panels`` does.
    """
    from flowad_jax.report import curves

    groups: dict[tuple[int, str], list[float]] = {}
    for label, kind, score in zip(labels, kinds, np.asarray(scores), strict=True):
        groups.setdefault((int(label), kind), []).append(float(score))
    ordered = [(kind, label, np.array(group)) for (label, kind), group in sorted(groups.items())]
    return _save(curves.distribution(ordered, threshold), Path(path))


def colour_limits(maps: np.ndarray, labels: np.ndarray) -> Limits:
    """Colour scale for all maps, from robust quantiles of the good images, or of all if none."""
    good = np.flatnonzero(np.asarray(labels) == 0)
    pixels = maps[good] if len(good) else maps
    flat = pixels.reshape(-1)[:: max(1, pixels.size // SAMPLE)]
    low, usual = (float(value) for value in np.quantile(flat, TYPICAL))
    usual = max(usual, low + 1e-6 * max(abs(low), 1e-6))  # a constant map still has a scale
    whose = "good pixels" if len(good) else "all pixels"
    return Limits(low, usual, 2 * usual - low, whose)


def slug(text: str) -> str:
    """A file name part that every file system takes: ASCII letters, digits and hyphens."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "-", ascii_only).strip("-")[:60] or "kind"


def _save(figure: Any, path: Path) -> str:
    with files.atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # names in scripts that the font lacks
        figure.savefig(temporary, format="png")
    return f"{path.absolute().parent.name}/{path.name}"


def _choose(
    labels: np.ndarray, kinds: list[str], scores: np.ndarray, per_kind: int
) -> list[tuple[str, list[int]]]:
    """Titles and the images to show under them, highest score first."""
    falling = [int(index) for index in np.argsort(-scores, kind="stable")]
    panels = []
    for kind in sorted({kind for label, kind in zip(labels, kinds, strict=True) if label}):
        found = [index for index in falling if labels[index] and kinds[index] == kind]
        some = len(found) > 2 * per_kind
        shown = found[:per_kind] + found[-per_kind:] if some else found
        which = f"the {per_kind} highest and {per_kind} lowest scores of {len(found)} images"
        panels.append((f"{kind}: {which if some else plural(len(found), 'image')}", shown))
    good = [index for index in falling if not labels[index]]
    if good:
        shown = good[: 2 * per_kind]
        which = f"the {plural(len(shown), 'highest score')} of {plural(len(good), 'image')}"
        panels.append((f"nearest to a false alarm: {which} without defect", shown))
    return panels


def _meaning(index: int, labels: np.ndarray, scores: np.ndarray) -> str:
    """The score of an image, and how it stands among the good or the anomalous images."""
    others = scores[labels == (0 if labels[index] else 1)]
    lines = [f"score {scores[index]:.4g}"]
    if len(others):
        below = int(np.sum(others < scores[index]))
        lines.append(f"above {below} of {len(others)} {'good' if labels[index] else 'anomalous'}")
    return "\n".join(lines)
