"""A bundle with new thresholds: the graph stays, without JAX."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from flowad_jax import archive, files
from flowad_jax.bundle import card, place, validate
from flowad_jax.bundle.reference import UNDECIDED, Reference
from flowad_jax.errors import UserError
from flowad_jax.evaluation.decisions import Decisions
from flowad_jax.flowad_runtime import Detector
from flowad_jax.flowad_runtime import UserError as RuntimeUserError
from flowad_jax.recalibration import sample as samples
from flowad_jax.recalibration.sample import Change, Sample


def trained_on(folder: Path) -> dict[str, str]:
    """Kinds of the images that the run had, by checksum; empty if the bundle does not say it."""
    try:
        lines = (folder / card.TRAINING).read_text(encoding="ascii").splitlines()
        return {digest: kind for kind, digest in (line.split() for line in lines)}
    except (FileNotFoundError, ValueError):
        return {}


def score(folder: Path, paths: Sequence[Path], backend: str) -> Sample:
    """Scores image files with the graph of a bundle.

    Raises:
      UserError: one cannot be read.
    """
    scores, peaks = [], []
    try:
        detector = Detector(folder, backend)
        size = detector.batch_size
        with tqdm(total=len(paths), desc="score", unit="img", disable=None, leave=False) as bar:
            for first in range(0, len(paths), size):
                batch = paths[first : first + size]
                for found in detector.judge(detector.load_all(batch)):
                    scores.append(found.scores)
                    peaks.append(float(found.map.max()))
                bar.update(len(batch))
    except RuntimeUserError as error:
        raise UserError(str(error)) from None
    return Sample(np.array(scores, np.float64), np.array(peaks), "images")


def recalibrate(
    folder: Path, target: Path, sample: Sample, replace: bool, rate: float | None, about: Any
) -> Change:
    """Writes a copy of a bundle with new thresholds.

    Args:
      folder: the bundle.
      target: the new one; nothing may be there.
      sample: of good images.
      replace: whether the held-out scores of before are forgotten.
      rate: of false alarms; None for that of before.
      about: what the card says of it.

    Raises:
      UserError: the bundle is damaged, or the new one cannot be written; nothing is left then.
    """
    stored = card.read(folder)
    learned = stored["calibration"]
    old = _parts(learned["image"]), _parts(learned["peak"])
    image, peak = samples.calibrated(old, sample, replace)
    kind = learned["kind"] if sample.complete else "cross_fast"
    rate = learned["false_alarm_rate"] if rate is None else rate
    decisions = Decisions(image, peak, rate, kind)
    before = Decisions(*old, learned["false_alarm_rate"], learned["kind"], stored["threshold"])
    stored["calibration"] = {
        "kind": kind,
        "false_alarm_rate": rate,
        "image": [part.tolist() for part in image],
        "peak": [part.tolist() for part in peak],
    }
    stored |= {"threshold": None, "card": decisions.card, "recalibrated": about}
    with place.filling(target) as new, files.writing(target):
        for name in card.files_of(folder):
            if "__pycache__" not in name:
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, new / name)
        check = validate.read_check(folder / card.CHECK)
        archive.save_arrays(new / card.CHECK, _decided(check, decisions).arrays())
        checked = stored.pop("checked")
        del stored["files"]
        card.write(new, stored, checked)
    count = samples.above(before, sample.scores)
    return Change(target, before.card, decisions.card, len(sample.scores), count)


def _parts(scores: Sequence[Sequence[float]]) -> list[np.ndarray]:
    return [np.array(part) for part in scores]


def _decided(check: Reference, decisions: Decisions) -> Reference:
    """The images of a bundle with what the new thresholds say about them."""
    p_values = decisions.p_values(check.score.T)
    found = decisions.anomalous(check.score.mean(axis=1), p_values)
    undecided = np.full(len(check.score), UNDECIDED, np.int8)
    return check._replace(
        p_value=np.full(len(check.score), np.nan) if p_values is None else p_values,
        anomalous=undecided if found is None else found.astype(np.int8),
    )
