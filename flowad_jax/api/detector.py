"""A trained detector as Python users hold it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import math
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowad_jax import files, schema
from flowad_jax.data import layout
from flowad_jax.data.masks import read_mask
from flowad_jax.data.pixels import TAKEN, describe, is_pixels, to_pixels
from flowad_jax.data.record import GOOD, UNKNOWN
from flowad_jax.detector import checkpoint, converted, folds, workdir
from flowad_jax.errors import UserError
from flowad_jax.evaluation import metrics
from flowad_jax.evaluation.decisions import GIVEN
from flowad_jax.inference import loading
from flowad_jax.inference.held_out import FILE
from flowad_jax.inference.prediction import Prediction, Shown
from flowad_jax.inference.predictor import Predictor

log = logging.getLogger("flowad_jax")

_MANY = f"{TAKEN}, a list or an iterator of such images, or a folder"


def load(
    workdir: str | Path,
    false_alarm_rate: float | None = None,
    allow_import: Collection[str] = (),
    batch_size: int | None = None,
    threshold: float | None = None,
) -> Detector:
    """Loads the detector that a run ended with, or that `Detector.save` wrote.

    Args:
      workdir: the folder.
      false_alarm_rate: largest probability of calling a normal image anomalous; None for that of
        the run.
      allow_import: packages whose functions the stored config may name, as in
        ``"mine.flows:build"``; nothing is imported from elsewhere.
      batch_size: most images that are computed at once; None for that of the run.
      threshold: image score above which an image is anomalous, instead of a false-alarm rate.

    Raises:
      UserError: the folder holds no finished run, the encoder's weights are not at hand, or the
        config names what may not be imported.
    """
    found = loading.load(workdir, false_alarm_rate, allow_import, batch_size, threshold)
    return Detector(found, Path(workdir))


class Detector:
    """Judges images, each by itself: its score does not depend on the others, nor on their order.

    Attributes:
      workdir: the folder that it was loaded from, with its ``report.html`` if it was trained there.
      name: of the method.
      encoder: of the frozen network.
      image_size: (height, width) of what the encoder sees of an image.
      fit: how images come to that size, `"stretch"`, `"crop"` or `"pad"`.
      filter: Pillow's filter for it.
      white: value of white in images of more than 8 bits.
      batch_size: most images that are computed at once.
    """

    def __init__(self, predictor: Predictor, workdir: Path) -> None:
        """Takes the parts; `load` and `fit` find them."""
        self._predictor = predictor
        self.workdir = workdir.absolute()
        self.name = predictor.name
        self.encoder: str = predictor.model.encoder.spec.name
        self.image_size, self.fit = predictor.canvas.shape, predictor.canvas.fit
        self.filter = predictor.filter
        self.white, self.batch_size = predictor.white, predictor.batch_size

    @property
    def thresholds(self) -> dict[str, Any]:
        """The calibration card; empty if training held no images out."""
        return self._predictor.thresholds

    def __repr__(self) -> str:
        pixels = f"{self._predictor.canvas} px"
        held_out = self.thresholds.get("meaning", "no thresholds: training held no images out")
        return f"Detector({self.name}, {self.encoder}, {pixels}, {held_out})"

    def predict(self, images: Any, tile: bool = False, batch_size: int | None = None) -> Any:
        """Judges one image or many.

        Args:
          images: one image: the path of a file, a PIL image, or an array (H, W), (H, W, 3) or
            (H, W, 4) of uint8, uint16 or floats from 0 to 1. Or many: a list of such images, an
            array (N, H, W, C), a folder, or an iterator.
          tile: cut images into overlapping tiles of the training size instead of resizing them.
          batch_size: images that are read and computed at once, 1 for a camera that must not wait;
            None for the detector's.

        Returns:
          A `Prediction` of one image; a list of many; of an iterator an iterator, which never holds
          more than a batch.

        Raises:
          UserError: a file cannot be read, or something is no such image.
        """
        size = self.batch_size if batch_size is None else batch_size
        if not isinstance(size, int) or size < 1:
            raise UserError(f"batch_size={size}: give a whole number of images, 1 or more")
        is_path = isinstance(images, str | os.PathLike)
        if is_path and os.path.isdir(images):
            if not (files := layout.images(Path(images))):
                raise UserError(f"no images in '{os.fspath(images)}': {TAKEN}")
            return list(self._predict(files, tile, size))
        if is_path or (is_pixels(images) and getattr(images, "ndim", 3) != 4):
            return next(self._predict([images], tile, 1, "the image"))
        if isinstance(images, Mapping | bytes) or not isinstance(images, Iterable):
            raise UserError(f"images are {describe(images)}: {_MANY}")
        found = self._predict(images, tile, size)
        return found if isinstance(images, Iterator) else list(found)

    def _predict(
        self, images: Iterable[Any], tile: bool, batch_size: int, name: str = "image {}"
    ) -> Iterator[Prediction]:
        numbered = enumerate(images)
        while batch := list(itertools.islice(numbered, batch_size)):
            given = [self._given(image, name.format(index)) for index, image in batch]
            judged = self._predictor.predict(given, tile)
            for image, found in zip(given, judged, strict=True):
                path = image if isinstance(image, str) else None
                shown = Shown(image, self.white, self.thresholds)
                yield dataclasses.replace(found, path=path, shown=shown)

    def _given(self, image: Any, name: str) -> np.ndarray | str:
        """An image as `Predictor.predict` takes it."""
        if not isinstance(image, str | os.PathLike):
            return to_pixels(image, self.white, name)
        if not os.path.isfile(image):
            raise UserError(f"{name}: there is no file '{os.fspath(image)}'")
        return os.fspath(image)

    def evaluate(
        self, images: Any, labels: Iterable[Any], masks: Iterable[Any] | None = None
    ) -> dict[str, float]:
        """Measures the detector on images whose labels are known.

        Args:
          images: many, as `predict` takes them.
          labels: of each image 0, False or ``"good"`` if it is normal, 1, True or the name of its
            defect if it is anomalous, -1 or ``"unknown"`` if nobody knows, which counts nowhere.
          masks: of each image the path of a mask, a PIL image, an array (H, W) that is not 0 on
            defects, or None if it has none.

        Returns:
          As fractions of 1: `image_auroc`, `image_ap`; with masks `pixel_auroc`, `pixel_ap`,
          `pixel_f1_max`, `aupro_0.30` and `aupro_0.05`; of those that could be decided
          `false_alarm_rate` of the normal and `detection_rate` of the anomalous ones. What the
          images cannot define, such as an AUROC without anomalous ones, is left out.

        Raises:
          UserError: numbers differ, or a label or mask is none.
        """
        truth = np.array([_label(label, index) for index, label in enumerate(labels)], int)
        predictions = self.predict(images)
        if isinstance(predictions, Prediction):
            raise UserError(f"images are {describe(images)}, which is one: {_MANY}")
        given = None if masks is None else list(masks)
        scores, maps, flags = [], [], []
        for prediction in predictions:
            scores.append(prediction.score)
            flags.append(prediction.anomalous)
            if given is not None:
                maps.append(prediction.map)
        for what, count in (("labels", len(truth)), ("masks", len(given or scores))):
            if count != len(scores):
                raise UserError(f"{len(scores)} images but {count} {what}: give one of each")
        marked = None
        if given is not None:
            pairs = zip(given, maps, truth, strict=True)
            marked = [_mask(*pair, index) for index, pair in enumerate(pairs)]
        found = metrics.evaluate(truth, np.array(scores), marked, maps)
        for name, value in (("false_alarm_rate", 0), ("detection_rate", 1)):
            decided = [flag for flag, label in zip(flags, truth, strict=True) if label == value]
            decided = [flag for flag in decided if flag is not None]
            found[name] = float(np.mean(decided)) if decided else math.nan
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def save(self, path: str | Path) -> None:
        """Writes what `load` needs into a folder, without training images and report.

        The weights of the encoder are included where they are a file of their own. A threshold that
        `load` was given is not: it has to be given again.

        Raises:
          UserError: the folder is not empty or cannot be written, or the workdir is gone.
        """
        if Path(path).is_dir() and any(Path(path).iterdir()):
            raise UserError(f"{path} is not empty: save the detector into a new folder")
        if not (self.workdir / workdir.CONFIG).is_file():
            raise UserError(f"{self.workdir} is gone, which held the detector: save it earlier")
        kept = [converted.DETECTOR, converted.META]
        if not converted.is_converted(self.workdir):
            own, parts = self._predictor.model.config, [Path()]
            if own.eval.calibration == "cross":
                parts = [Path(folds.FOLDER, str(number)) for number in range(own.eval.folds)]
            kept = [
                f"{part / checkpoint.FOLDER}/{checkpoint.latest(self.workdir / part)}"
                for part in parts
            ]
        kept += [FILE] * (self.workdir / FILE).exists()
        if self.thresholds.get("decided_by") == GIVEN:
            limit = self.thresholds["image"]
            log.warning("%s does not hold threshold=%.6g: give it to load again", path, limit)
        with files.atomic_folder(path) as folder, files.writing(path):
            for name in kept:
                source, target = self.workdir / name, folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
            config = schema.read(self.workdir / workdir.CONFIG, {"type": "object"}, "it is damaged")
            if self.thresholds:
                config["eval"]["false_alarm_rate"] = self.thresholds["false_alarm_rate"]
            weights = Path(self._predictor.model.config.encoder.weights)
            if weights.is_file():
                shutil.copy(weights, folder)
                config["encoder"]["weights"] = weights.name
            files.write_text(folder / workdir.CONFIG, json.dumps(config, indent=2) + "\n")


def _label(label: Any, index: int) -> int:
    if isinstance(label, str):
        return {GOOD: 0, UNKNOWN: -1}.get(label, 1)
    if label in (-1, 0, 1):
        return int(label)
    raise UserError(f"label {index} is {label!r}: give 0 or 'good', 1 or a defect's name, or -1")


def _mask(mask: Any, anomaly_map: np.ndarray, label: int, index: int) -> np.ndarray:
    """The mask of an image as bool, of the size of its map."""
    if mask is None:
        if label == 1:
            raise UserError(f"mask {index} is None, but image {index} is anomalous: give its mask")
        return np.zeros(anomaly_map.shape, bool)
    if isinstance(mask, str | os.PathLike):
        found = read_mask(os.fspath(mask))
    else:
        found = np.asarray(mask) if is_pixels(mask) else np.zeros(0)
        found = found.astype(bool) if found.dtype.kind in "biu" else np.zeros(0)
    if found.shape != anomaly_map.shape:
        wanted = f"a mask of its image, {anomaly_map.shape}, of bool or integers"
        raise UserError(f"mask {index} is {describe(mask)}: give {wanted}")
    return found
