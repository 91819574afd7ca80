"""The good images that thresholds are made of: none was trained on, none counts twice."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowad_jax.data import fingerprint, inputs
from flowad_jax.errors import UserError, printable
from flowad_jax.evaluation.decisions import Decisions
from flowad_jax.feedback.store import GOOD, FeedbackStore

log = logging.getLogger("flowad_jax")
LISTED = 3  # names in a message


class Sample(NamedTuple):
    """Scores of good images.

    Attributes:
      scores: (N, K) by every part of the detector.
      peaks: (N,) the largest values of their maps.
      source: ``"images"`` or ``"feedback"``.
      complete: whether they are all that there was to choose from; images that people picked are
        no random sample, so that they can only give an estimate.
    """

    scores: np.ndarray
    peaks: np.ndarray
    source: str
    complete: bool = True


class Change(NamedTuple):
    """What a calibration does, for people to compare.

    Attributes:
      place: what was written.
      before, after: the calibration cards.
      images: that were added.
      above: how many of them the earlier card calls anomalous; None if it decides nothing.
    """

    place: Path
    before: Mapping[str, object]
    after: Mapping[str, object]
    images: int
    above: int | None


def find(named: Sequence[str], trained: Mapping[str, str], replace: bool) -> list[Path]:
    """Returns the files of good images, each content once.

    Args:
      named: files, folders and patterns.
      trained: ``"train"`` or ``"holdout"`` by the checksums of images that the run had.
      replace: whether images that were held out are welcome; joined to themselves they would count
        twice.

    Raises:
      UserError: there is none, or one was trained on.
    """
    found = inputs.find(inputs.split(named), Path())
    kept: dict[str, Path] = {}
    refused: dict[str, list[str]] = {"train": [], "holdout": []}
    for path in found.images.values():
        digest = fingerprint.of_file(path)
        if (kind := trained.get(digest)) == "train" or (kind and not replace):
            refused[kind].append(printable(str(path)))
        elif digest in kept:
            log.warning("'%s' has the content of '%s': it counts once", path, kept[digest])
        else:
            kept[digest] = path
    for kind, what in (("train", "trained on"), ("holdout", "held out and count already")):
        if names := refused[kind]:
            some = ", ".join(f"'{name}'" for name in names[:LISTED])
            raise UserError(
                f"--good: {len(names)} images were {what}, such as {some}: a calibration needs "
                "images that the detector has not seen"
            )
    if not trained:
        log.warning("whether the images were trained on cannot be checked: nothing is known of it")
    return list(kept.values())


def from_feedback(store: FeedbackStore, detector: str) -> Sample:
    """Returns what operators confirmed as good since the last start of the drift statistic.

    Raises:
      UserError: they confirmed nothing.
    """
    rows = store.since_reset(detector)
    good = [row for row in rows if row.verdict == GOOD]
    seen: dict[str, int] = {row.judgement.image: number for number, row in enumerate(good)}
    chosen = [good[number] for number in seen.values()]
    if not chosen:
        raise UserError(f"{store.path}: no image of this detector was confirmed as good yet")
    scores = np.array([row.judgement.scores for row in chosen], np.float64)
    peaks = np.array([row.judgement.peak for row in chosen], np.float64)
    return Sample(scores, peaks, "feedback", all(row.verdict for row in rows))


def joined(old: Sequence[np.ndarray], new: Iterable[np.ndarray], replace: bool) -> list[np.ndarray]:
    """Gives image i to part i modulo their number, behind what the part had or in its place."""
    values = list(new)
    parts = [np.array(values[k :: len(old)], np.float64) for k in range(len(old))]
    return parts if replace else [np.concatenate(pair) for pair in zip(old, parts, strict=True)]


def calibrated(
    old: tuple[Sequence[np.ndarray], Sequence[np.ndarray]], sample: Sample, replace: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns scores and peaks of normal images by part, after a sample came to them.

    Raises:
      UserError: it is too small, or a score is no number.
    """
    count = len(old[0])
    if not (np.isfinite(sample.scores).all() and np.isfinite(sample.peaks).all()):
        raise UserError("the detector gives NaN or infinite values for good images")
    if replace and len(sample.scores) < 2 * count:
        raise UserError(
            f"{len(sample.scores)} good images are too few: give at least {2 * count}, or --add"
        )
    own = [row[number % count] for number, row in enumerate(sample.scores)]
    return joined(old[0], own, replace), joined(old[1], sample.peaks, replace)


def above(decisions: Decisions, scores: np.ndarray) -> int | None:
    """How many of some images (N, K) are called anomalous; None where nothing is decided."""
    found = decisions.anomalous(scores.mean(axis=1), decisions.p_values(scores.T))
    return None if found is None else int(found.sum())
