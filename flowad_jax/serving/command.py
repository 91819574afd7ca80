"""What predict.py does: reads images, has them judged, writes what was found."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowad_jax import lock
from flowad_jax.data.images import WHITE
from flowad_jax.errors import UserError, printable
from flowad_jax.serving import detector as detectors
from flowad_jax.serving import inputs, outputs, watch
from flowad_jax.serving.outputs import NAMED, Output
from flowad_jax.serving.work import Work
from flowad_jax.training import workdir
from flowad_jax.training.interrupt import Signals

log = logging.getLogger("flowad_jax")

DONE, FAULTY, ANOMALOUS, UNDECIDED = 0, 1, 3, 4


@dataclass(frozen=True)
class Job:
    """What to judge and where to write; see the flags of predict.py.

    Attributes:
      workdir: folder of a finished run.
      inputs: files, folders and patterns.
      output: folder for what is found.
      false_alarm_rate: None for that of the run.
      tile: judge large images in overlapping tiles.
      save: which of ``heatmap``, ``overlay`` and ``map`` to write.
      map_format: ``"tiff"`` or ``"npy"``.
      watch: go on with images that arrive in the folders.
      interval: seconds between two looks for them.
      patience: seconds for which a watched file that cannot be read is tried again.
      fail_on_anomaly: let the exit code tell whether an image is anomalous or undecided.
      allow_import: packages whose functions the config of the workdir may name.
    """

    workdir: str
    inputs: Sequence[str]
    output: str
    false_alarm_rate: float | None = None
    tile: bool = False
    save: Sequence[str] = tuple(outputs.FOLDERS)
    map_format: str = outputs.MAP_FORMATS[0]
    watch: bool = False
    interval: float = 1.0
    patience: float = 60.0
    fail_on_anomaly: bool = False
    allow_import: Collection[str] = ()


def run(job: Job) -> int:
    """Judges all images of a job, or those that arrive until a signal ends it.

    An image that cannot be read gets a line on standard error and one in the output.

    Returns:
      The exit code: 0; 1 if an image could not be read; if asked for, 3 if one is anomalous, else 4
      if one is undecided; 128 plus the signal that ended a job before all images were judged.

    Raises:
      UserError: there is no detector, no image, or no place to write; nothing was changed.
    """
    folder, named = Path(job.output), inputs.split(job.inputs)
    outputs.check(folder)  # before a detector is loaded for nothing
    found = inputs.Found({}, {})
    if job.watch:
        watch.check_folders(named)
    else:
        found = inputs.find(named, folder)
    detector = detectors.load(job.workdir, job.false_alarm_rate, job.allow_import)
    about = {"workdir": os.path.realpath(job.workdir), "method": detector.name}
    with lock.owning(folder), Signals() as signals:
        earlier = outputs.take_over(folder)
        if job.watch:
            _check_same(folder, earlier, {**about, "calibration": detector.thresholds})
        output = Output(
            folder, earlier, about, detector.thresholds, job.save, job.map_format, job.watch
        )
        before = output.counts.copy()
        config = workdir.load_config(job.workdir, job.allow_import)
        white = config.data.options.get("white", WHITE)
        work = Work(detector, output, signals, white, job.tile)
        if job.watch:
            watcher = watch.Watcher(named, folder, earlier.lines, job.patience)
            log.info("watching %s; Ctrl-C ends it", ", ".join(named))
            work.follow(watcher, job.interval)
            found.add(inputs.Found({}, watcher.skipped))
        else:
            work.judge([*found.images.values()])
        judged = output.counts - before
        stopped = 0 if judged.total() >= len(found.images) else signals.received
        output.finish(found.skipped.values(), finished=not stopped)
    _tell(job, judged, found, bool(stopped), output.replaces)
    return 128 + stopped if stopped else _exit_code(judged, job.fail_on_anomaly)


def _tell(
    job: Job, judged: Counter[str], found: inputs.Found, stopped: bool, replaces: bool
) -> None:
    """Prints what there was, and what became of it."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(judged.items()))
    of = f" of {len(found.images)}" if stopped else ""
    kept = "not kept, the earlier output stays" if stopped and replaces else "see"
    print(f"{judged.total()}{of} images: {kinds or 'none'}; {kept} {printable(job.output)}")
    if found.skipped:
        names = [printable(str(path)) for path in found.skipped.values()]
        more = ", ..." if len(names) > NAMED else ""
        print(f"{len(names)} skipped, which are no images: {', '.join(names[:NAMED])}{more}")


def _exit_code(judged: Counter[str], fail_on_anomaly: bool) -> int:
    if judged["unreadable"]:
        return FAULTY
    if not fail_on_anomaly:
        return DONE
    return ANOMALOUS if judged["anomalous"] else UNDECIDED if judged["undecided"] else DONE


def _check_same(folder: Path, earlier: outputs.Earlier, wanted: dict[str, Any]) -> None:
    """Lines of two detectors, or of two thresholds, must not mix."""
    told = {key: earlier.summary.get(key) for key in wanted}
    if isinstance(told["workdir"], str):
        told["workdir"] = os.path.realpath(told["workdir"])
    # As JSON has it: a tuple is a list there.
    if earlier.summary and json.loads(json.dumps(wanted)) != told:
        raise UserError(
            f"--output: {folder} holds predictions of another detector or false-alarm rate: choose "
            "another folder to watch into"
        )
