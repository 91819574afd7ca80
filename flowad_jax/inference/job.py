"""What ``flowad predict`` does: reads images, has them judged, writes what was found.

A photograph goes from `inputs` through `PredictionJob`, which reads it, to the `Predictor`, and as
a `PredictedImage` to the `Output`, which draws its pictures and writes its line.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from flowad_jax import lock
from flowad_jax.data import inputs
from flowad_jax.data.images import depth_advice, open_windows, read_image
from flowad_jax.data.inputs import identify
from flowad_jax.data.prefetch import map_in_threads
from flowad_jax.errors import UserError, printable
from flowad_jax.flowad_runtime.drift import Drift
from flowad_jax.inference import loading, outputs, watch
from flowad_jax.inference.output_paths import FOLDERS
from flowad_jax.inference.outputs import NAMED, Output, PredictedImage
from flowad_jax.inference.prediction import LoadedImage, Prediction
from flowad_jax.inference.predictor import Predictor
from flowad_jax.interrupt import Signals

log = logging.getLogger("flowad_jax")

DONE, FAULTY, ANOMALOUS, UNDECIDED = 0, 1, 3, 4
KEPT = 2**25  # pixels of whole images that a batch keeps
READERS = 2  # threads that decode the next batch during this one


@dataclass(frozen=True)
class PredictArgs:
    """What to judge and where to write: the flags of ``flowad predict`` explain it."""

    workdir: str
    inputs: Sequence[str]
    output: str
    false_alarm_rate: float | None = None
    threshold: float | None = None
    tile: bool = False
    save: Sequence[str] = tuple(FOLDERS)
    map_format: str = outputs.MAP_FORMATS[0]
    watch: bool = False
    interval: float = 1.0
    patience: float = 60.0
    fail_on_anomaly: bool = False
    allow_import: Collection[str] = ()
    batch_size: int | None = None
    drift_alpha: float = 0.01


def run(args: PredictArgs) -> int:
    """Judges all images of the inputs, or those that arrive until a signal ends it.

    An image that cannot be read gets a line on standard error and one in the output.

    Returns:
      The exit code: 0; 1 if an image could not be read; if asked for, 3 if one is anomalous, else 4
      if one is undecided; 128 plus the signal that ended a job before all images were judged.

    Raises:
      UserError: there is no detector, no image, or no place to write; nothing was changed.
    """
    folder, named = Path(args.output), inputs.split(args.inputs)
    outputs.read_summary(folder)  # before a detector is loaded for nothing
    found = inputs.Found({}, {})
    if args.watch:
        watch.check_folders(named)
    else:
        found = inputs.find(named, folder)
    detector = loading.load(
        args.workdir, args.false_alarm_rate, args.allow_import, args.batch_size, args.threshold
    )
    about = {"workdir": os.path.realpath(args.workdir), "method": detector.name}
    drift = None
    if args.drift_alpha and not args.tile:  # tiled images have scores of another kind
        drift = Drift(detector.normal, args.drift_alpha)
    with lock.owning(folder), Signals() as signals:
        previous = outputs.read_existing(folder)
        output = Output(
            *(folder, previous, about, detector.thresholds, args.save, args.map_format),
            *(args.watch, drift),
        )
        before = output.counts.copy()
        if args.watch:
            watcher = watch.Watcher(named, folder, previous.lines, args.patience)
            log.info("watching %s; Ctrl-C ends it", ", ".join(named))
            PredictionJob(detector, output, signals, args.tile, watcher).follow(args.interval)
            found.skipped.update(watcher.skipped)
        else:
            PredictionJob(detector, output, signals, args.tile).judge([*found.images.values()])
        judged = output.counts - before
        stopped = 0 if judged.total() >= len(found.images) else signals.received
        output.finish(found.skipped.values(), finished=not stopped)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(judged.items()))
    of = f" of {len(found.images)}" if stopped else ""
    kept = "not kept, the earlier output stays" if stopped and output.replaces else "see"
    print(f"{judged.total()}{of} images: {kinds or 'none'}; {kept} {printable(args.output)}")
    if found.skipped:
        names = [printable(str(path)) for path in found.skipped.values()]
        more = ", ..." if len(names) > NAMED else ""
        print(f"{len(names)} skipped, which are no images: {', '.join(names[:NAMED])}{more}")
    if drift and judged:
        print(drift.describe())
    if stopped:
        return 128 + stopped
    if judged["unreadable"]:
        return FAULTY
    if not args.fail_on_anomaly:
        return DONE
    return ANOMALOUS if judged["anomalous"] else UNDECIDED if judged["undecided"] else DONE


class PredictionJob:
    """Reads images, has them judged and writes what was found, until a signal stops it.

    It never holds more full-size pixels than it has to.
    """

    def __init__(
        self,
        detector: Predictor,
        output: Output,
        signals: Signals,
        tile: bool = False,
        watcher: watch.Watcher | None = None,
    ):
        """Takes who judges, where to write, and who finds images that arrive."""
        self._detector, self._output, self._signals = detector, output, signals
        self._tile, self._watcher = tile, watcher
        self._is_advised = False

    def follow(self, interval: float) -> None:
        """Judges images as they arrive, looking for them every ``interval`` seconds."""
        assert self._watcher is not None
        while not self._signals.received:
            if paths := self._watcher.look():
                self.judge(paths)
            watch.wait(interval, lambda: bool(self._signals.received))
        self._write(self._watcher.postponed())

    def judge(self, paths: Sequence[Path]) -> None:
        """Judges images, as many at once as the detector computes."""
        if not self._is_advised and (advice := depth_advice(paths, self._detector.white)):
            log.warning("%s", advice)
            self._is_advised = True
        quiet = True if self._watcher else None  # None: quiet unless on a terminal
        with tqdm(total=len(paths), desc="predict", unit="img", disable=quiet) as bar:
            for count in (self._judge_tiled if self._tile else self._judge_whole)(paths):
                bar.update(count)
                if self._signals.received:
                    break

    def _judge_whole(self, paths: Sequence[Path]) -> Iterator[int]:
        """Judges batches of resized images; yields their lengths."""
        size = self._detector.batch_size
        images = map_in_threads(self._read, paths, READERS, ahead=size)
        while batch := list(itertools.islice(images, size)):
            read = [item for item in batch if item]
            readable = [loaded for _, loaded in read if loaded]
            predictions = _judge_each(self._detector, readable)
            done: list[PredictedImage] = []
            held = 0
            for image, loaded in read:
                if loaded:
                    prediction, seconds = next(predictions)
                    image = self._complete(image, loaded, prediction, seconds)
                    held += loaded.size[0] * loaded.size[1]
                done.append(image)
                if held > KEPT:  # what was found comes with a map of the image's size
                    self._write_or_postpone(done)
                    done, held = [], 0
            self._write_or_postpone(done)
            yield len(batch)

    def _judge_tiled(self, paths: Sequence[Path]) -> Iterator[int]:
        """Judges images in tiles, one after another, reading windows of them; yields ones."""
        for path in paths:
            image, started = PredictedImage(path, identify(path)), time.perf_counter()
            try:
                # No thread reads ahead: holding the pixels of one, it would wait for those of this.
                with open_windows(path, self._detector.white) as windows:
                    prediction = self._detector.judge_tiled(windows)
                    pixels = windows.read() if self._output.shows_images else None
                seconds = time.perf_counter() - started
                image = image._replace(prediction=prediction, pixels=pixels, seconds=seconds)
            except UserError as error:
                image = image._replace(error=str(error))
            if not self._has_changed(image):
                self._write_or_postpone([image])
            yield 1

    def _read(self, path: Path) -> tuple[PredictedImage, LoadedImage | None] | None:
        image, loaded = PredictedImage(path, identify(path)), None
        try:
            loaded = self._detector.load_image(path, KEPT // self._detector.batch_size)
        except UserError as error:
            image = image._replace(error=str(error))
        return None if self._has_changed(image) else (image, loaded)

    def _has_changed(self, image: PredictedImage) -> bool:
        """Whether a watched file was written to while it was read: then it will come again."""
        return bool(self._watcher) and (not image.file or image.file != identify(image.path))

    def _complete(
        self,
        image: PredictedImage,
        loaded: LoadedImage,
        prediction: Prediction | UserError,
        seconds: float,
    ) -> PredictedImage:
        """Adds what was found, and the pixels for the overlay; many are read once more."""
        if isinstance(prediction, UserError):
            return image._replace(error=f"cannot judge '{image.path}': {prediction}")
        pixels = loaded.pixels
        if pixels is None and self._output.shows_images:
            try:
                pixels = read_image(image.path, self._detector.white)
                if pixels.shape[:2] != loaded.size:
                    what = "it changed meanwhile; judge it again"
                    raise UserError(f"cannot judge '{image.path}': {what}")
            except UserError as error:
                return image._replace(error=str(error))
        return image._replace(prediction=prediction, pixels=pixels, seconds=seconds)

    def _write_or_postpone(self, images: Sequence[PredictedImage]) -> None:
        """Writes what was found; a watched file that cannot be read may be on its way."""
        watcher = self._watcher
        self._write([x for x in images if not (x.error and watcher and watcher.postpone(x))])

    def _write(self, images: Sequence[PredictedImage]) -> None:
        if not images:
            return
        drift = self._output.drift
        was_calm = drift is not None and not drift.alarm
        self._output.add(images)
        for image in images:
            if self._watcher and image.prediction:
                said = image.prediction.describe()
                print(f"{printable(str(image.path))}: {said}", flush=True)
            if self._watcher and image.file:
                self._watcher.settle(image.file)
            if image.error:
                tqdm.write(f"error: {printable(image.error)}", file=sys.stderr)
        if self._watcher and drift and was_calm and drift.alarm:
            print(drift.describe(), file=sys.stderr, flush=True)


def _judge_each(
    detector: Predictor, images: Sequence[LoadedImage]
) -> Iterator[tuple[Prediction | UserError, float]]:
    """Yields predictions with their seconds; the first one comes with the scores of all.

    An image that the detector refuses does not take the others of its batch with it.
    """
    started, share, done = time.perf_counter(), 0.0, 0
    try:
        for prediction in detector.judge(images):
            seconds = share + time.perf_counter() - started
            if not share:
                share = seconds = seconds / len(images)
            yield prediction, seconds
            started, done = time.perf_counter(), done + 1
    except UserError as error:
        if len(images) - done == 1:
            yield error, 0.0
        else:
            for image in images[done:]:
                yield from _judge_each(detector, [image])
