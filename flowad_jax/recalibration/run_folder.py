"""The workdir of a run with new thresholds: the trained state stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from flowad_jax import files, schema
from flowad_jax.bundle import place
from flowad_jax.detector import checkpoint, checksums, converted, workdir
from flowad_jax.errors import UserError
from flowad_jax.evaluation.decisions import Decisions
from flowad_jax.inference import loading
from flowad_jax.recalibration import sample as samples
from flowad_jax.recalibration.sample import Change, Sample


def trained_on(folder: Path) -> dict[str, str]:
    """Kinds of the images that the run had, by checksum; empty if it does not say it."""
    meta = workdir.meta_of(folder)
    images = meta.get("images", {})
    held, trained = (images.get(kind, {}).values() for kind in ("holdout", "train"))
    return dict.fromkeys(held, "holdout") | dict.fromkeys(
        [*trained, *meta.get("ancestors", ())], "train"
    )


def check(folder: Path) -> None:
    """Raises a UserError unless a workdir holds one finished detector of its own training."""
    config = workdir.load_config(folder)
    if config.eval.calibration == "cross" or converted.is_converted(folder):
        raise UserError(
            f"{folder} is a cross-calibrated or a converted detector: export it and give the "
            "bundle to --bundle"
        )


def score(folder: Path, paths: Sequence[Path]) -> Sample:
    """Scores image files with the detector of a workdir; raises as `loading.load` and `predict`."""
    detector = loading.load(folder)
    scores, peaks, size = [], [], detector.batch_size
    with tqdm(total=len(paths), desc="score", unit="img", disable=None, leave=False) as bar:
        for first in range(0, len(paths), size):
            batch = [detector.load_image(path) for path in paths[first : first + size]]
            for found in detector.judge(batch):
                scores.append(found.scores)
                peaks.append(float(found.map.max()))
            bar.update(len(batch))
    return Sample(np.array(scores, np.float64), np.array(peaks), "images")


def recalibrate(
    folder: Path, target: Path, sample: Sample, replace: bool, rate: float | None, about: Any
) -> Change:
    """Writes a copy of a workdir with new thresholds; see `bundle.recalibrate`.

    Results and report stay behind, as they are of the thresholds of before.

    Raises:
      UserError: as there; and the sample is no complete one, which a workdir cannot say.
    """
    if not sample.complete:
        raise UserError(
            "not every judged image has a verdict, so that only an estimate is possible: export "
            "the detector and give the bundle to --bundle, or confirm all"
        )
    config, step = workdir.load_config(folder), checkpoint.latest(folder)
    assert step is not None
    meta = checkpoint.read_meta(folder, step)
    fitted = meta["fitted"]
    old = [np.array(fitted["image"])], [np.array(fitted["peak"])]
    image, peak = samples.calibrated(old, sample, replace)
    before = Decisions(*old, config.eval.false_alarm_rate, "split")
    rate = config.eval.false_alarm_rate if rate is None else rate
    decisions = Decisions(image, peak, rate, "split")
    meta["fitted"] |= {"image": image[0].tolist(), "peak": peak[0].tolist()}
    # Tiled images were ranked among the images of before, which these are not.
    meta["images"] = {**meta.get("images", {}), "holdout": {}}
    meta["recalibrated"] = about
    own = schema.read(folder / workdir.CONFIG, {"type": "object"}, "the workdir is damaged")
    own["eval"]["false_alarm_rate"] = rate
    with place.filling(target) as new, files.writing(target):
        part = Path(checkpoint.FOLDER, str(step))
        shutil.copytree(folder / part, new / part)
        (new / part / checkpoint.META).write_text(checksums.seal(meta))
        (new / workdir.CONFIG).write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")
    count = samples.above(before, sample.scores)
    return Change(target, before.card, decisions.card, len(sample.scores), count)
