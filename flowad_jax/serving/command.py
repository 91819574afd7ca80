"""What predict.py does: reads images, has them judged, writes what was found."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from flowad_jax import lock
from flowad_jax.data.images import WHITE, depth_advice, read_image
from flowad_jax.errors import UserError, printable
from flowad_jax.serving import detector as detectors
from flowad_jax.serving import inputs, outputs, watch
from flowad_jax.serving.detector import Detector, Prediction
from flowad_jax.serving.outputs import NAMED, Judged, Output, Unreadable
from flowad_jax.serving.watch import Identity
from flowad_jax.training import workdir
from flowad_jax.training.interrupt import Signals

log = logging.getLogger("flowad_jax")

DONE, FAULTY, ANOMALOUS, UNDECIDED = 0, 1, 3, 4
READERS = 2  # threads that decode the next batch during this one


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


class _Decoded(NamedTuple):
    """An image file and its pixels."""

    path: Path
    file: Identity | None
    image: np.ndarray


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
    detector = detectors.load(job.workdir, job.false_alarm_rate)
    about = {"workdir": os.path.realpath(job.workdir), "method": detector.name}
    with lock.owning(folder), Signals() as signals:
        earlier = outputs.take_over(folder)
        if job.watch:
            _check_same(folder, earlier, {**about, "calibration": detector.thresholds})
        output = Output(
            folder, earlier, about, detector.thresholds, job.save, job.map_format, job.watch
        )
        work = _Work(job, detector, output, signals)
        if not job.watch:
            work.judge([*found.images.values()])
            return work.finish(found.skipped, len(found.images))
        watcher = watch.Watcher(named, folder, earlier.lines, job.patience)
        work.follow(watcher)
        return work.finish(watcher.skipped)


class _Work:
    """One call of `run`: judges batch by batch and keeps count."""

    def __init__(self, job: Job, detector: Detector, output: Output, signals: Signals):
        self.job, self.signals = job, signals
        self._detector, self._output = detector, output
        self._before = output.counts.copy()
        self._watcher: watch.Watcher | None = None
        self._waiting: dict[Identity, Unreadable] = {}  # to be tried again
        options = workdir.load_config(job.workdir).data.options
        self._white = options.get("white", WHITE)
        self._is_advised = False

    def follow(self, watcher: watch.Watcher) -> None:
        """Judges images as they arrive, until a signal ends it."""
        self._watcher = watcher
        log.info("watching %s; Ctrl-C ends it", ", ".join(self.job.inputs))
        while not self.signals.received:
            if paths := watcher.look():
                self.judge(paths)
            watch.wait(self.job.interval, lambda: bool(self.signals.received))
        waiting = self._waiting.items()
        self._write([item for file, item in waiting if watch.identify(item.path) == file])

    def judge(self, paths: Sequence[Path]) -> None:
        """Judges images, as many at once as the detector computes; stops early at a signal."""
        if not self._is_advised and (advice := depth_advice(paths, self._white)):
            log.warning("%s", advice)
            self._is_advised = True
        size = self._detector.batch_size
        batches = [paths[first : first + size] for first in range(0, len(paths), size)]
        quiet = True if self.job.watch else None  # None: quiet unless on a terminal
        with tqdm(total=len(paths), desc="predict", unit="img", disable=quiet) as bar:
            for files in _read_ahead(batches, self._read):
                self._judge_batch(files)
                bar.update(len(files))
                if self.signals.received:
                    break

    def finish(self, skipped: Mapping[str, Path], asked: int = 0) -> int:
        """Writes the last summary, prints what there was and returns the exit code."""
        found = self._output.counts - self._before
        stopped = self.signals.received and found.total() < asked
        self._output.finish(skipped.values(), finished=not stopped)
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
        of = f" of {asked}" if stopped else ""
        kept = "not kept, the earlier output stays" if stopped and self._output.replaces else "see"
        print(f"{found.total()}{of} images: {kinds or 'none'}; {kept} {printable(self.job.output)}")
        if skipped:
            names = ", ".join(printable(str(path)) for path in [*skipped.values()][:NAMED])
            more = ", ..." if len(skipped) > NAMED else ""
            print(f"{len(skipped)} skipped, which are no images: {names}{more}")
        if stopped:
            return 128 + self.signals.received
        if found["unreadable"]:
            return FAULTY
        if not self.job.fail_on_anomaly:
            return DONE
        return ANOMALOUS if found["anomalous"] else UNDECIDED if found["undecided"] else DONE

    def _read(self, path: Path) -> _Decoded | Unreadable | None:
        """Reads an image; None if it changed meanwhile and is watched: then it will come again."""
        file = watch.identify(path)
        result: _Decoded | Unreadable
        try:
            result = _Decoded(path, file, read_image(path, self._white))
        except UserError as error:
            result = Unreadable(path, file, str(error))
        if self._watcher and (file is None or file != watch.identify(path)):
            return None
        return result

    def _judge_batch(self, files: Sequence[_Decoded | Unreadable | None]) -> None:
        decoded = [file for file in files if isinstance(file, _Decoded)]
        started = time.perf_counter()
        verdicts = iter(self._predict([file.image for file in decoded]))
        seconds = (time.perf_counter() - started) / max(1, len(decoded))
        results: list[Judged | Unreadable] = []
        for file in files:
            if isinstance(file, Unreadable):
                results += [] if self._may_become_readable(file) else [file]
            elif file is None:
                continue
            elif isinstance(verdict := next(verdicts), UserError):
                results.append(
                    Unreadable(file.path, file.file, f"cannot judge '{file.path}': {verdict}")
                )
            else:
                results.append(Judged(*file, verdict, seconds))
        self._write(results)

    def _may_become_readable(self, item: Unreadable) -> bool:
        """Whether a watched file will be tried again: it may be on its way."""
        if self._watcher is None or item.file is None or not self._watcher.is_patient(item.file):
            return False
        self._waiting[item.file] = item
        return True

    def _write(self, results: Sequence[Judged | Unreadable]) -> None:
        self._output.add(results)
        for result in results:
            if self._watcher and result.file:
                self._watcher.settle(result.file)
                self._waiting.pop(result.file, None)
            if isinstance(result, Unreadable):
                tqdm.write(f"error: {printable(result.reason)}", file=sys.stderr)

    def _predict(self, images: list[np.ndarray]) -> list[Prediction | UserError]:
        """Judges images; one that the detector refuses does not take the others with it."""
        try:
            return [*self._detector.predict(images, tile=self.job.tile)] if images else []
        except UserError as error:
            if len(images) == 1:
                return [error]
            return [verdict for image in images for verdict in self._predict([image])]


def _read_ahead(
    batches: Iterable[Sequence[Path]], read: Callable[[Path], _Decoded | Unreadable | None]
) -> Iterator[list[_Decoded | Unreadable | None]]:
    """Yields decoded batches while threads decode the next one; two are in memory at most."""
    waiting: deque[list[Future[_Decoded | Unreadable | None]]] = deque()
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
    try:
        for paths in batches:
            waiting.append([pool.submit(read, path) for path in paths])
            if len(waiting) > 1:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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
