"""An exported detector, as a program holds it."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from . import card as cards
from . import decisions, drift, graph, regions
from .canvas import Canvas, rgb
from .errors import UserError, printable, reason
from .images import DecodedFile, to_pixels
from .regions import Region

NO_HOLDOUT = "training held no images out (data.holdout=0), so that there are only scores"
NOT_A_NUMBER = "its score is not a number: the detector overflowed on it"
READERS = 2  # threads that decode the images of a batch


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What a detector says about one image.

    Attributes:
      score: larger is more anomalous.
      p_value: how often a normal image scores as high; None if training held no images out.
      anomalous: the decision; None where that cannot be decided, which is not the same as normal.
      map: (H, W) float32 at the image's own size.
      regions: where the map exceeds the pixel threshold, highest peak first.
      reason: why there is no decision; None if there is one.
      decided_by: what it rests on, a ``"promise"`` about false alarms, an ``"estimate"`` of them,
        or a ``"threshold"`` that was given.
      path: the file, as it was given; None for an image that is no file.
      scores: by every part of the detector; `score` is their mean.
      brightness, sharpness: of the image on the canvas, see `drift.look`.
    """

    score: float
    p_value: float | None
    anomalous: bool | None
    map: np.ndarray
    regions: tuple[Region, ...]
    reason: str | None = None
    decided_by: str | None = None
    path: str | None = None
    scores: tuple[float, ...] = ()
    brightness: float | None = None
    sharpness: float | None = None

    def describe(self) -> str:
        """Verdict, score and p-value in a few words; an estimate is called one."""
        verdict = {True: "anomalous", False: "normal", None: "undecided"}[self.anomalous]
        verdict += " (estimate)" * (self.decided_by == "estimate")
        score = f"score {self.score:.4g}" if math.isfinite(self.score) else "no score"
        p_value = "no p-value" if self.p_value is None else f"p {self.p_value:.3g}"
        return f"{verdict}, {score}, {p_value}"

    def __repr__(self) -> str:
        name = f"{printable(self.path)}: " if self.path else ""
        return f"Prediction({name}{self.describe()}, {len(self.regions)} regions)"


class Loaded(NamedTuple):
    """An image on the canvas, and its own (H, W)."""

    pixels: np.ndarray
    size: tuple[int, int]
    path: str | None = None


class Detector:
    """Judges images, each by itself, as the detector did that was exported.

    Attributes:
      name: of the method.
      canvas: what images are brought to.
      white: value of white in images of more than 8 bits.
      batch_size: most images that are computed at once.
      thresholds: what decides: the calibration card of the run, or one made of its scores where
        another rate or threshold is asked for; empty if nothing decides.
      normal, peaks: scores of the held-out normal images by every part, and the largest values of
        their maps.
      kind: of calibration.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        backend: str = "onnxruntime",
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        threads: int = 0,
    ) -> None:
        """Loads what `flowad export` wrote; nothing but its graph is ever run.

        Args:
          path: the folder.
          backend: ``"onnxruntime"`` or ``"openvino"``.
          false_alarm_rate: largest probability of calling a normal image anomalous; None for that
            of the export.
          threshold: image score above which an image is anomalous, whatever the rate.
          threads: of the backend; 0 for all cores.

        Raises:
          UserError: a file is missing, damaged or not as it was exported, or an argument is wrong.
        """
        folder = Path(path)
        card = cards.read(folder)
        calibration, image = card["calibration"], card["image"]
        self.name: str = card["name"]
        self.canvas = Canvas(image["height"], image["width"], image["fit"], image["filter"])
        self.white: int = image["white"]
        self.batch_size: int = card["batch"]["most"] if card["batch"]["dynamic"] else 1
        self._most = None if card["batch"]["dynamic"] else 1
        self._position, self._min_region = card["position"], card["min_region"]
        self.normal: list[np.ndarray] = calibration["image"]
        self.peaks: list[np.ndarray] = calibration["peak"]
        self.kind: str = calibration["kind"]
        self.thresholds: dict[str, Any] = card["card"]
        if false_alarm_rate is not None or threshold is not None:
            rate = calibration["false_alarm_rate"] if false_alarm_rate is None else false_alarm_rate
            scores = (calibration["image"], calibration["peak"])
            self.thresholds = decisions.make_card(*scores, rate, calibration["kind"], threshold)
        self.sha256: str = card["files"][cards.ONNX]["sha256"]
        self._path = folder / cards.ONNX
        model = cards.read_graph(folder, card)
        self._graph = graph.load(model, backend, threads, self._path)

    def predict(self, images: Any) -> Any:
        """Judges one image or many.

        Args:
          images: one image: the path of a file, a PIL image, or an array (H, W), (H, W, 3) or
            (H, W, 4) of uint8, uint16 or floats from 0 to 1. Or many: a list or an iterator of
            such images, or an array (N, H, W, C).

        Returns:
          A `Prediction` of one image, a list of many.

        Raises:
          UserError: a file cannot be read, or something is no such image.
        """
        is_path = isinstance(images, str | os.PathLike)
        if is_path or isinstance(images, Image.Image) or getattr(images, "ndim", 4) != 4:
            return next(self.judge([self.load(images)]))
        if not isinstance(images, Iterable):
            raise UserError(f"images are of type {type(images).__name__}: give a list of images")
        found: list[Prediction] = []
        rest = iter(images)
        while batch := list(itertools.islice(rest, self.batch_size)):
            found += self.judge(self.load_all(batch))
        return found

    def load(self, image: Any) -> Loaded:
        """Brings an image to the canvas; raises as `predict`."""
        if isinstance(image, str | os.PathLike):
            file = DecodedFile(image, self.white)
            try:
                pixels = self.canvas.resize(file.read, file.size)
            except (UserError, MemoryError) as error:
                raise UserError(f"cannot read '{os.fspath(image)}': {reason(error)}") from error
            return Loaded(pixels, file.size, os.fspath(image))
        held = to_pixels(image, self.white)

        def read(top: int, bottom: int, left: int, right: int) -> np.ndarray:
            return held[top:bottom, left:right]

        return Loaded(self.canvas.resize(read, held.shape[:2]), held.shape[:2])

    def read(self, path: str | os.PathLike[str]) -> np.ndarray:
        """Reads a file at its own size, (H, W, 3) uint8; raises as `predict`."""
        file = DecodedFile(path, self.white)
        return rgb(file.read(0, file.size[0], 0, file.size[1]))

    def load_all(self, images: Sequence[Any]) -> list[Loaded]:
        """Does that for the images of a batch, two at a time."""
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self.load, images))

    def judge(self, images: Sequence[Loaded]) -> Iterator[Prediction]:
        """Yields what there is to say about the images of a batch, when its turn comes.

        Raises:
          UserError: the graph fails.
        """
        size = self._most or len(images)
        for first in range(0, len(images), size):
            batch = images[first : first + size]
            places = np.array([self.canvas.place(one.size) for one in batch], np.int32)
            pixels = np.stack([one.pixels for one in batch])
            scores, maps = self.graph(pixels, places if self.canvas.fit == "pad" else None)
            for image, score, values in zip(batch, scores, maps, strict=True):
                yield self._decide(image, score, values)

    def graph(
        self, image: np.ndarray, place: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Runs the graph alone.

        Args:
          image: (B, h, w, 3) uint8, pixels of the canvas.
          place: (B, 4) int32, what of it shows the image; where the images are padded.

        Returns:
          Scores (B, K) by every part of the detector and maps (B, h, w), float32.

        Raises:
          UserError: it fails.
        """
        inputs = {"image": image} if place is None else {"image": image, "place": place}
        try:
            found = self._graph(inputs)
            scores, maps = found["score"], found["map"]
        except Exception as error:  # each backend has exceptions of its own
            raise UserError(f"{self._path} fails: {reason(error)}") from error
        wanted = ((len(image), len(self.normal)), (len(image), *self.canvas[:2]))
        if (scores.shape, maps.shape) != wanted or {scores.dtype, maps.dtype} != {np.dtype("f4")}:
            raise UserError(f"{self._path} returns {scores.shape} and {maps.shape}, not {wanted}")
        return scores, maps

    def _decide(self, image: Loaded, scores: np.ndarray, values: np.ndarray) -> Prediction:
        """Says what follows from the scores of an image and its map on the canvas."""
        score = float(scores.mean(dtype=np.float64))
        looks = drift.look(image.pixels, self.canvas.place(image.size))
        beside = tuple(map(float, scores)), *looks
        whole, card = self.canvas.at_image(values, image.size), self.thresholds
        if not card:
            return Prediction(score, None, None, whole, (), NO_HOLDOUT, None, image.path, *beside)
        p, why, anomalous = decisions.p_value(scores, self.normal), None, None
        if card["image"] is None and card["decided_by"] == "estimate":
            rate = f"{100 * card['false_alarm_rate']:.3g} %"
            why = f"a single held-out image allows no estimate of {rate} false alarms"
        if math.isnan(score):
            p, why = None, NOT_A_NUMBER
        if not why:
            anomalous = decisions.decide(card, score, p)
        found: tuple[Region, ...] = ()
        if card["pixel"] is not None:
            seen, least = self.canvas.seen(image.size), self._least_area(image.size)
            found = regions.find(whole, card["pixel"], seen, least, bool(anomalous))
        by = None if why else card["decided_by"]
        return Prediction(score, p, anomalous, whole, found, why, by, image.path, *beside)

    def _least_area(self, size: tuple[int, int]) -> float:
        """Pixels of the smallest region of an image (H, W) that is reported."""
        if self._min_region is not None:
            return self._min_region * (math.prod(size) if self._min_region < 1 else 1)
        zoom = math.prod(self.canvas.seen(size)[2:]) / math.prod(self.canvas.place(size)[2:])
        return zoom * self._position
