"""Judges image files batch by batch, and never holds more full-size pixels than it has to."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from flowad_jax.data.images import depth_advice, open_windows, read_image
from flowad_jax.errors import UserError, printable
from flowad_jax.serving import reading, watch
from flowad_jax.serving.detector import Detector, Prediction
from flowad_jax.serving.outputs import Judged, Output, Unreadable
from flowad_jax.serving.reading import Loaded
from flowad_jax.serving.watch import Identity
from flowad_jax.training.interrupt import Signals

log = logging.getLogger("flowad_jax")


class _File(NamedTuple):
    """An image file that was read."""

    path: Path
    file: Identity | None
    loaded: Loaded


class Work:
    """Reads images, has them judged and writes what was found, until a signal stops it."""

    def __init__(
        self, detector: Detector, output: Output, signals: Signals, white: int, tile: bool = False
    ):
        """Takes who judges and where to write.

        Args:
          detector: judges.
          output: receives what was found.
          signals: end the work after the batch under way.
          white: value of white in images of more than 8 bits.
          tile: judge large images in overlapping tiles.
        """
        self._detector, self._output, self._signals = detector, output, signals
        self._white, self._tile = white, tile
        self._is_advised = False
        self._watcher: watch.Watcher | None = None
        self._waiting: dict[Identity, Unreadable] = {}  # to be tried again

    def follow(self, watcher: watch.Watcher, interval: float) -> None:
        """Judges images as they arrive, looking for them every ``interval`` seconds."""
        self._watcher = watcher
        while not self._signals.received:
            if paths := watcher.look():
                self.judge(paths)
            watch.wait(interval, lambda: bool(self._signals.received))
        waiting = self._waiting.items()
        self._write([item for file, item in waiting if watch.identify(item.path) == file])

    def judge(self, paths: Sequence[Path]) -> None:
        """Judges images, as many at once as the detector computes."""
        if not self._is_advised and (advice := depth_advice(paths, self._white)):
            log.warning("%s", advice)
            self._is_advised = True
        size = self._detector.batch_size
        batches = [paths[first : first + size] for first in range(0, len(paths), size)]
        quiet = True if self._watcher else None  # None: quiet unless on a terminal
        with tqdm(total=len(paths), desc="predict", unit="img", disable=quiet) as bar:
            for count in self._tiled(paths) if self._tile else self._whole(batches):
                bar.update(count)
                if self._signals.received:
                    break

    def _whole(self, batches: Sequence[Sequence[Path]]) -> Iterator[int]:
        """Judges batches of resized images; yields their lengths."""
        for items in reading.read_ahead(batches, self._read):
            verdicts = self._verdicts([item.loaded for item in items if isinstance(item, _File)])
            results: list[Judged | Unreadable] = []
            held = 0
            for item in items:
                if isinstance(item, _File):
                    results.append(self._result(item, *next(verdicts)))
                    held += item.loaded.size[0] * item.loaded.size[1]
                elif item and not self._may_become_readable(item):
                    results.append(item)
                if held > reading.KEPT:  # what was found comes with a map of the image's size
                    self._write(results)
                    results, held = [], 0
            self._write(results)
            yield len(items)

    def _tiled(self, paths: Sequence[Path]) -> Iterator[int]:
        """Judges images in tiles, one after another, reading windows of them; yields ones."""
        for path in paths:
            file, started = watch.identify(path), time.perf_counter()
            result: Judged | Unreadable
            try:
                # No thread reads ahead: holding the pixels of one, it would wait for those of this.
                with open_windows(path, self._white) as windows:
                    prediction = self._detector.judge_tiled(windows)
                    pixels = windows.read() if self._output.shows_images else None
                result = Judged(path, file, pixels, prediction, time.perf_counter() - started)
            except UserError as error:
                result = Unreadable(path, file, str(error))
            if not self._changed(path, file) and not (
                isinstance(result, Unreadable) and self._may_become_readable(result)
            ):
                self._write([result])
            yield 1

    def _read(self, path: Path) -> _File | Unreadable | None:
        """Reads an image; None if it changed meanwhile and is watched: then it will come again."""
        file, keep = watch.identify(path), reading.KEPT // self._detector.batch_size
        size, filter = self._detector.image_size, self._detector.filter
        result: _File | Unreadable
        try:
            result = _File(path, file, reading.load_image(path, size, filter, self._white, keep))
        except UserError as error:
            result = Unreadable(path, file, str(error))
        return None if self._changed(path, file) else result

    def _changed(self, path: Path, file: Identity | None) -> bool:
        return bool(self._watcher) and (file is None or file != watch.identify(path))

    def _verdicts(self, images: Sequence[Loaded]) -> Iterator[tuple[Prediction | UserError, float]]:
        """Yields what the detector says, and in how many seconds.

        An image that it refuses does not take the others with it.
        """
        started, done = time.perf_counter(), 0
        shared = 0.0  # the scores of all come with the first
        try:
            for prediction in self._detector.judge(images):
                seconds = time.perf_counter() - started
                if not done:
                    shared = seconds = seconds / len(images)
                else:
                    seconds += shared
                yield prediction, seconds
                started, done = time.perf_counter(), done + 1
        except UserError as error:
            if len(images) - done == 1:
                yield error, 0.0
            else:
                for image in images[done:]:
                    yield from self._verdicts([image])

    def _result(
        self, item: _File, verdict: Prediction | UserError, seconds: float
    ) -> Judged | Unreadable:
        if isinstance(verdict, UserError):
            reason = f"cannot judge '{item.path}': {verdict}"
            return Unreadable(item.path, item.file, reason)
        try:
            pixels = self._pixels(item)
        except UserError as error:
            return Unreadable(item.path, item.file, str(error))
        return Judged(item.path, item.file, pixels, verdict, seconds)

    def _pixels(self, item: _File) -> np.ndarray | None:
        """The pixels for the overlay of an image; of a large one they are read once more."""
        if item.loaded.pixels is not None or not self._output.shows_images:
            return item.loaded.pixels
        pixels = read_image(item.path, self._white)
        if pixels.shape[:2] != item.loaded.size:
            raise UserError(f"cannot judge '{item.path}': it changed meanwhile; judge it again")
        return pixels

    def _may_become_readable(self, item: Unreadable) -> bool:
        """Whether a watched file will be tried again: it may be on its way."""
        if self._watcher is None or item.file is None or not self._watcher.is_patient(item.file):
            return False
        self._waiting[item.file] = item
        return True

    def _write(self, results: Sequence[Judged | Unreadable]) -> None:
        if not results:
            return
        self._output.add(results)
        for result in results:
            if self._watcher and result.file:
                self._watcher.settle(result.file)
                self._waiting.pop(result.file, None)
            if isinstance(result, Unreadable):
                tqdm.write(f"error: {printable(result.reason)}", file=sys.stderr)
