"""A detector that is served: loaded, watched for a newer one, and asked about files."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from flowad_jax.errors import UserError, printable
from flowad_jax.feedback.store import FeedbackStore, Judgement, beside
from flowad_jax.flowad_runtime import Prediction
from flowad_jax.flowad_runtime import UserError as RuntimeUserError
from flowad_jax.serve import judge, logs
from flowad_jax.serve.batches import Batches
from flowad_jax.serve.judge import Judge, LoadOptions
from flowad_jax.serve.metrics import Metrics
from flowad_jax.serve.stream import Stream

LOOK = 2.0  # seconds between looks at whether a newer detector lies at the path
_ENDS = re.compile(r"\.(flowad|onnx)$")


class ServeOptions(NamedTuple):
    """What all detectors of a service share; the flags of ``flowad serve`` explain it."""

    load: LoadOptions = LoadOptions()
    queue: int = 64
    batch_wait: float = 0.002
    max_pixels: int = 100_000_000
    feedback: bool = True
    keep_images_days: float = 0.0
    drift_alpha: float = 0.01


class Item(NamedTuple):
    """A file on its way through the queue."""

    judge: Judge
    loaded: Any
    name: str
    sha256: str


class Judged(NamedTuple):
    """What was found in a file, and its share of the seconds of its batch."""

    id: int
    item: Item
    prediction: Prediction
    seconds: float


class Served:
    """One detector of a service.

    Attributes:
      name: by which it is asked for.
      path: where it lies.
      judge: what is loaded at present.
      stream: what it has judged.
      counts: of decisions since the start.
      error: why a newer detector at the path is not taken; None if there is none.
    """

    def __init__(self, path: str, options: ServeOptions, metrics: Metrics):
        """Loads it; raises a `UserError` if that fails."""
        self.path, self.name = Path(path), name_of(path)
        self._options, self._metrics = options, metrics
        self._signature = judge.signature(self.path)
        self.judge = judge.open_judge(self.path, options.load)
        store = FeedbackStore(beside(path)) if options.feedback else None
        self.stream = Stream(store, options.drift_alpha)
        self.stream.start(self.judge.version, self.judge.normal)
        self.counts: Counter[str] = Counter()
        self.error: str | None = None
        self._lock = threading.Lock()
        self.batches = Batches(
            self._judge_batch,
            lambda: self.judge.detector.batch_size,
            options.queue,
            options.batch_wait,
            self.name,
        )
        self._measure()

    def predict_all(
        self, files: Sequence[tuple[Path, str]], pictures: Sequence[str] = ()
    ) -> list[Judged | UserError]:
        """Judges image files, whose places in the queue were taken by `Batches.admit`.

        Args:
          files: with the names that they are known by.
          pictures: kinds to draw of each.

        Returns:
          For each what was found, or why it cannot be read.

        Raises:
          UserError: judging failed, or what was found cannot be kept.
        """
        sent: list[Future[Judged] | UserError] = []
        for file, name in files:
            try:
                sent.append(self.batches.submit(self._load(file, name)))
            except UserError as error:
                sent.append(error)
        found = [one if isinstance(one, UserError) else one.result() for one in sent]
        for (file, _), one in zip(files, found, strict=True):
            if not isinstance(one, UserError):
                self._keep(file, one, pictures)
        return found

    def _load(self, file: Path, name: str) -> Item:
        used = self.judge
        try:
            height, width = used.size(file)
            if height * width > self._options.max_pixels:
                most = f"{self._options.max_pixels:,}"
                raise TooLarge(f"'{name}' has {height} x {width} pixels, more than {most}")
            loaded = used.load(file)
        except (UserError, RuntimeUserError, MemoryError) as error:
            if isinstance(error, TooLarge):
                raise
            # A file is named as it was sent, not where it lies here.
            raise UserError(printable(str(error).replace(str(file), name))) from None
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return Item(used, loaded, name, digest)

    def _keep(self, file: Path, found: Judged, pictures: Sequence[str]) -> None:
        for kind in pictures:
            drawn = found.item.judge.picture(kind, file, found.prediction)
            self.stream.keep_picture(found.id, kind, drawn)
        if self._options.keep_images_days and self.stream.store:
            self.stream.store.keep_picture(found.id, file.read_bytes())

    def _judge_batch(self, items: Sequence[Item]) -> list[Judged]:
        """Judges what the queue gives together, and keeps it before anyone hears of it."""
        found: list[Judged] = []
        for used in dict.fromkeys(item.judge for item in items):  # two while one is replaced
            mine = [item for item in items if item.judge is used]
            started = time.perf_counter()
            predictions = list(used.judge([item.loaded for item in mine]))
            seconds = time.perf_counter() - started
            self._metrics.judging.labels(self.name).observe(seconds)
            pairs = zip(mine, predictions, strict=True)
            numbers, is_alarm = self.stream.add([self._judgement(*pair) for pair in pairs])
            if is_alarm:
                logs.event(self.stream.drift.describe(), logging.WARNING, detector=self.name)
            share = seconds / len(mine)
            for number, item, one in zip(numbers, mine, predictions, strict=True):
                found.append(Judged(number, item, one, share))
                self.counts[decision(one.anomalous)] += 1
                self._metrics.images.labels(self.name, decision(one.anomalous)).inc()
        self._measure()
        return found

    def _judgement(self, item: Item, found: Prediction) -> Judgement:
        scores = found.scores or (found.score,)
        peak = float(found.map.max())
        return Judgement(
            time.time(),
            *(item.judge.version, item.sha256, item.name),
            scores=scores,
            peak=peak,
            p_value=found.p_value,
            anomalous=found.anomalous,
            brightness=found.brightness,
            sharpness=found.sharpness,
        )

    def refresh(self) -> None:
        """Takes a newer detector that lies at the path; a broken one is refused with a word."""
        with self._lock:
            if (now := judge.signature(self.path)) == self._signature:
                self.error = None
                return
            try:
                newer = judge.open_judge(self.path, self._options.load)
            except UserError as error:
                if self.error != str(error):  # once; it may still be on its way
                    logs.event("reload refused", logging.ERROR, detector=self.name, why=str(error))
                self.error = str(error)
                return
            self._signature, self.error = now, None
            if newer.version != self.judge.version:
                self.stream.start(newer.version, newer.normal)
                self.judge = newer
                logs.event("reloaded", detector=self.name, version=newer.version)
            self._measure()

    def forget(self) -> None:
        """Drops the files of images that were kept long enough."""
        if self.stream.store and (days := self._options.keep_images_days):
            self.stream.store.drop_pictures(time.time() - 86400 * days)

    def _measure(self) -> None:
        drift = self.stream.drift
        self._metrics.drift.labels(self.name).set(drift.value or 0.0)
        self._metrics.alarm.labels(self.name).set(drift.alarm is not None)
        self._metrics.queue.labels(self.name).set_function(lambda: self.batches.waiting)

    def close(self) -> None:
        """Judges what waits, then closes the file of feedback."""
        self.batches.close()
        if self.stream.store:
            self.stream.store.close()


class TooLarge(UserError):
    """An image has more pixels than the service takes."""


def name_of(path: str) -> str:
    """The name of a detector: that of its folder, without its end."""
    return _ENDS.sub("", Path(path).absolute().name)


def decision(anomalous: bool | None) -> str:
    """The word for a decision."""
    return {True: "anomalous", False: "normal", None: "undecided"}[anomalous]
