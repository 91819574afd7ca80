"""A trained detector: images in, decisions out.

import flowad_jax

detector = flowad_jax.load("runs/screws", false_alarm_rate=0.05)
for prediction in detector.predict(["new/1.png", "new/2.png"]):
print(prediction.p_value, prediction.anomalous, prediction.regions)
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.data import transforms
from flowad_jax.data._windows import Windows
from flowad_jax.data.images import WHITE, open_windows
from flowad_jax.errors import UserError
from flowad_jax.evaluation import conformal
from flowad_jax.evaluation.fitted import Fitted
from flowad_jax.evaluation.native import resize_map
from flowad_jax.serving import regions, tiling
from flowad_jax.serving.reading import Loaded, check_pixels, describe, load_image
from flowad_jax.serving.regions import Region
from flowad_jax.training import state, workdir
from flowad_jax.training.model import Model, build_model
from flowad_jax.types import Scores, Tree

log = logging.getLogger("flowad_jax")

ImageLike = np.ndarray | str | os.PathLike[str]
NO_HOLDOUT = "training held no images out (data.holdout=0), so that there are only scores"


class Prediction(NamedTuple):
    """What a detector says about one image.

    Attributes:
      score: larger is more anomalous.
      p_value: how often a good image scores as high; None if training held no images out.
      anomalous: whether the p-value is at most the false-alarm rate; None where that cannot be
        decided, which is not the same as normal.
      map: (H, W) float32 at the image's own size.
      regions: where the map exceeds the pixel threshold, highest peak first.
      reason: why there is no decision; None if there is one.
    """

    score: float
    p_value: float | None
    anomalous: bool | None
    map: np.ndarray
    regions: tuple[Region, ...]
    reason: str | None = None


def load(
    workdir_path: str | Path,
    false_alarm_rate: float | None = None,
    allow_import: Collection[str] = (),
) -> Detector:
    """Loads the detector that a run of ``train.py`` ended with.

    Args:
      workdir_path: folder of the run.
      false_alarm_rate: largest probability of calling a good image anomalous; None for that of
        the run's config.
      allow_import: packages whose functions the stored config may name, as in
        ``"mine.flows:build"``; nothing is imported from elsewhere.

    Raises:
      UserError: the folder holds no finished run, the encoder's weights are not at hand, or the
        config names what may not be imported.
    """
    if not isinstance(workdir_path, str | os.PathLike):
        raise UserError(f"a workdir is {describe(workdir_path)}: give the folder of a run")
    path = Path(workdir_path).absolute()
    config = workdir.load_config(path, allow_import)
    rate = config.eval.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
    conformal.check_rate(rate)
    model = build_model(config)
    trained, position, meta = state.of_workdir(model, path)
    if "fitted" not in meta or position.epoch < config.train.epochs:
        raise UserError(
            f"the run in {path} stands at epoch {position.epoch} of {config.train.epochs}: "
            "finish it with the same train.py command"
        )
    fitted = state.fitted_of(meta, config)
    if fitted is None:
        raise UserError(
            f"{path / workdir.CONFIG}: eval.image_score, eval.top or eval.calibration_images is "
            "not what the thresholds were fitted with: put the old value back"
        )
    variables = {"params": trained.params, "constants": trained.constants}
    return Detector(model, variables, fitted, rate)


class Detector:
    """Judges images, each by itself: its score does not depend on the others, nor on their order.

    Attributes:
      name: of the method.
      image_size: side of the square that images are resized to.
      filter: how they are resized.
      batch_size: images that are computed at once.
      thresholds: the calibration card, see `conformal.card`; empty if training held no images out.
    """

    def __init__(self, model: Model, variables: Tree, fitted: Fitted, rate: float):
        """Takes the parts; `load` finds them."""
        self._model, self._variables, self._fitted = model, variables, fitted
        self.name: str = model.config.method.name
        self.image_size = model.image_size
        self.filter: str = model.config.data.filter
        self.batch_size: int = model.config.eval.batch_size
        # A method that sees images gets them as one more map, which has no likelihoods.
        self._white: int = model.config.data.options.get("white", WHITE)
        sides = [shape.shape[1] for shape in model.feature_shapes]
        self._sides = sides[: len(sides) - model.method.sees_images]
        self.thresholds: dict[str, Any] = {}
        self._told: set[str] = set()  # reasons that were logged
        if len(fitted.image):
            self.thresholds = conformal.card(fitted.image, fitted.peak, rate)
            _warn(self.thresholds)
        else:
            self._tell(NO_HOLDOUT)

    def predict(self, images: Sequence[ImageLike], tile: bool = False) -> list[Prediction]:
        """Judges images.

        Args:
          images: (H, W, 3) uint8 arrays of any size, or files that Pillow reads.
          tile: cut images into overlapping tiles of the training size instead of resizing them,
            see `tiling`. The score is that of the most anomalous tile, and the p-value pays for
            looking at all of them.

        Raises:
          UserError: a file cannot be read, or an array is no such image.
        """
        if not isinstance(images, Sequence | np.ndarray) or isinstance(images, str | bytes):
            raise UserError(f"images are {describe(images)}: give a list of images")
        if isinstance(images, np.ndarray) and images.ndim < 4:
            raise UserError(f"images are {describe(images)}: give a list of images, also of one")
        if tile:
            return [self._predict_tiled(image) for image in images]
        found: list[Prediction] = []
        for first in range(0, len(images), self.batch_size):
            batch = [self._load(image) for image in images[first : first + self.batch_size]]
            found += self.judge(batch)
        return found

    def judge(self, images: Sequence[Loaded]) -> Iterator[Prediction]:
        """Yields what there is to say about up to ``batch_size`` images.

        The scores are computed first; a map as large as its image is made when its turn comes.
        """
        if not images:
            return
        scores = self._aggregate(self.log_probs([image.resized for image in images]))
        p_values = self._p_values(scores.image).tolist()
        for row, image in enumerate(images):
            anomaly_map = resize_map(scores.pixel[row], image.size)
            yield self._prediction(scores.image[row], p_values[row], anomaly_map)

    def judge_tiled(self, image: np.ndarray | Windows) -> Prediction:
        """Judges an image (H, W, 3) uint8, or a file of which parts are read, in tiles."""
        size = self.image_size
        step = tiling.coarsest_stride(size, self._sides)
        shape = image.shape[:2] if isinstance(image, np.ndarray) else image.size
        tiles = tiling.plan(shape, size, tiling.default_overlap(size, step), step)
        stitcher, pieces = tiling.Stitcher(tiles), tiling.cut(image, tiles)
        found: list[float] = []
        while batch := list(itertools.islice(pieces, self.batch_size)):
            maps = self.log_probs(batch)  # resizing them changes nothing
            for row in range(len(batch)):
                stitcher.add(len(found) + row, [scale[row] for scale in maps])
            found += list(self._aggregate(maps).image)
        stitched, padded = stitcher.result()
        pixel = self._aggregate([scale[None] for scale in stitched], padded).pixel[0]
        height, width = tiles.size
        p_value = self._p_values(np.array(found))
        return self._prediction(
            float(np.max(found)),  # NaN if one is
            tiling.family_wise(p_value) if self.thresholds else None,
            pixel[:height, :width].astype(np.float32),
            tiling.indecision(len(tiles), self.thresholds) if self.thresholds else None,
        )

    def _load(self, image: ImageLike) -> Loaded:
        if isinstance(image, str | os.PathLike):
            return load_image(Path(image), self.image_size, self.filter, self._white)
        pixels = check_pixels(image)
        resized = transforms.resize_image(pixels, self.image_size, self.filter)
        return Loaded(resized, pixels.shape[:2], None)

    def _predict_tiled(self, image: ImageLike) -> Prediction:
        if isinstance(image, str | os.PathLike):
            with open_windows(Path(image), self._white) as windows:
                return self.judge_tiled(windows)
        return self.judge_tiled(check_pixels(image))

    def _aggregate(
        self, log_probs: Sequence[np.ndarray], size: tuple[int, int] | None = None
    ) -> Scores:
        return self._model.evaluator.aggregate(log_probs, self._fitted.calibration, size)

    def log_probs(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Likelihood maps of up to ``batch_size`` images: L arrays (N, h, w)."""
        size, filter = self.image_size, self.filter
        pixels = np.stack([transforms.resize_image(image, size, filter) for image in images])
        # Always the same shape: compiled once, and computed alike in every batch.
        padded = np.resize(pixels, (self.batch_size, *pixels.shape[1:]))
        batch = transforms.normalize(padded, self._model.mean, self._model.std)
        maps = self._model.encode(self._model.encoder.variables, batch)
        wide = tuple(x.astype(np.float32) for x in maps)  # they may be kept in half precision
        out = self._model.evaluator.log_probs(self._variables, wide)
        return [scale[: len(images)] for scale in out]

    def _p_values(self, scores: np.ndarray) -> np.ndarray:
        return conformal.p_values(scores, self._fitted.image)

    def _prediction(
        self, score: float, p_value: float | None, pixels: np.ndarray, reason: str | None = None
    ) -> Prediction:
        if not self.thresholds or p_value is None:
            return Prediction(float(score), None, None, pixels, (), NO_HOLDOUT)
        found = regions.find(pixels, self.thresholds["pixel"])
        anomalous: bool | None = bool(p_value <= self.thresholds["promised"])
        if np.isnan(score):
            p_value, reason = None, "its score is not a number: the detector overflowed on it"
        if reason:
            anomalous = None
            self._tell(reason)
        return Prediction(float(score), p_value, anomalous, pixels, found, reason)

    def _tell(self, reason: str) -> None:
        """Logs why there are no decisions, once and not for every image."""
        if reason not in self._told:
            self._told.add(reason)
            log.warning("no decision: %s", reason)


def _warn(card: dict[str, Any]) -> None:
    if card["promised"] > card["false_alarm_rate"]:
        log.warning(
            "%d held-out images cannot promise a false-alarm rate below %.3g: using that instead "
            "of %.3g; raise data.holdout or train on more images",
            card["images"],
            card["promised"],
            card["false_alarm_rate"],
        )
