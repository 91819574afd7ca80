"""Judges images with a trained state: `flowad_jax.api` wraps it for Python, `job` for files."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowad_jax.canvas import Box
from flowad_jax.data import images as image_files
from flowad_jax.data import transforms
from flowad_jax.data.images import Windows
from flowad_jax.data.pixels import describe, to_pixels
from flowad_jax.detector.calibration import Part, decisions
from flowad_jax.detector.model import DetectorModel
from flowad_jax.errors import UserError
from flowad_jax.evaluation.decisions import GIVEN, Decisions
from flowad_jax.evaluation.mask_resolution import at_image
from flowad_jax.evaluation.padding import hide_padding
from flowad_jax.evaluation.scores import mean_scores
from flowad_jax.flowad_runtime import drift
from flowad_jax.inference import regions, tiling
from flowad_jax.inference.held_out import HeldOut
from flowad_jax.inference.prediction import LoadedImage, Prediction
from flowad_jax.types import Scores

log = logging.getLogger("flowad_jax")

ImageLike = np.ndarray | str | os.PathLike[str]
NO_HOLDOUT = "training held no images out (data.holdout=0), so that there are only scores"


class Predictor:
    """Judges images, each by itself: its score does not depend on the others, nor on their order.

    Attributes:
      model, parts: what scores images.
      normal: (n,) scores of the held-out normal images, by every part.
      threshold: image score that was given, or None.
      held_out: what training held out, if that is known.
      name: of the method.
      canvas: what images are brought to.
      filter: Pillow's filter for it.
      white: value of white in images of more than 8 bits.
      position: pixels of the canvas that one position of the finest feature map stands for.
      batch_size: most images that are computed at once; fewer are padded to a power of 2.
      thresholds: the calibration card, see `Decisions`; empty if training held no images out and
        no threshold was given.
    """

    def __init__(
        self,
        model: DetectorModel,
        parts: Sequence[Part],
        threshold: float | None = None,
        held_out: HeldOut | None = None,
    ):
        """Takes the parts, which `load` finds; several show the means of their scores and maps."""
        self.model, self.parts = model, parts
        self.normal = [part.fitted.image for part in parts]
        self.threshold, self.held_out = threshold, held_out
        self._tiled: tuple[int, Decisions] | None = None  # for images of up to so many tiles
        self._without_tiles = ""  # why there is none
        config, self.canvas = model.config, model.canvas
        self.name: str = config.method.name
        self.filter: str = config.data.filter
        self.white: int = config.data.options.get("white", image_files.WHITE)
        self.batch_size: int = config.eval.batch_size
        self._map_shapes = model.likelihood_shapes
        self.position = math.prod(self.canvas.shape) / max(map(math.prod, self._map_shapes))
        self._decisions = decisions([part.fitted for part in parts], config, threshold)
        self.thresholds: dict[str, Any] = self._decisions.card
        self._logged: set[str] = set()
        if self.thresholds:
            log.info("%s", self.thresholds["meaning"])
        if reason := self._decisions.reason if self.thresholds else NO_HOLDOUT:
            self._log_indecision(reason)

    def predict(self, images: Sequence[ImageLike], tile: bool = False) -> list[Prediction]:
        """Judges images.

        Args:
          images: what `to_pixels` takes, or files in one of the formats that are read.
          tile: cut images into overlapping tiles of the training size instead of resizing them,
            see `tiling`. The score is that of the most anomalous tile; held-out images that were
            judged in tiles, too, decide about it.

        Raises:
          UserError: a file cannot be read, or an array is no such image.
        """
        if not isinstance(images, Sequence | np.ndarray) or isinstance(images, str | bytes):
            raise UserError(f"images are {describe(images)}: give a list of images")
        if isinstance(images, np.ndarray) and images.ndim < 4:
            raise UserError(f"images are {describe(images)}: give a list of images, also of one")
        found: list[Prediction] = []
        if not tile:
            for first in range(0, len(images), self.batch_size):
                batch = [self.load_image(one) for one in images[first : first + self.batch_size]]
                found += self.judge(batch)
            return found
        for image in images:
            if isinstance(image, str | os.PathLike):
                with image_files.open_windows(Path(image), self.white) as windows:
                    found.append(self.judge_tiled(windows))
            else:
                found.append(self.judge_tiled(to_pixels(image, self.white)))
        return found

    def load_image(self, image: ImageLike, keep: int = 0) -> LoadedImage:
        """Reads an image as `judge` takes it; keeps at most ``keep`` pixels of a file besides.

        Raises:
          UserError: as for `predict`.
        """
        if isinstance(image, str | os.PathLike):
            path = Path(image)
            height, width = image_files.image_size(path)
            if height * width > keep:
                resized, size = image_files.read_resized(path, self.canvas, self.filter, self.white)
                return LoadedImage(resized, size, None)
            pixels = image_files.read_image(path, self.white)
        else:
            pixels = to_pixels(image, self.white)
        resized = transforms.resize_image(pixels, self.canvas, self.filter)
        return LoadedImage(resized, pixels.shape[:2], pixels)

    def judge(self, images: Sequence[LoadedImage]) -> Iterator[Prediction]:
        """Yields what there is to say about up to ``batch_size`` images.

        The scores are computed first; a map as large as its image is made when its turn comes.
        """
        if not images:
            return
        maps, sizes = self.log_probs([one.resized for one in images]), [one.size for one in images]
        shown = [hide_padding(part, self.canvas, sizes) for part in maps]
        found = self._scores(shown)
        scores = mean_scores(found)
        p_values = self._decisions.p_values(np.stack([one.image for one in found]))
        for row, image in enumerate(images):
            anomaly_map = at_image(scores.pixel[row], self.canvas, image.size)
            p_value = None if p_values is None else float(p_values[row])
            seen, place = self.canvas.seen(image.size), self.canvas.place(image.size)
            zoom = (seen.height * seen.width) / (place.height * place.width)
            said = self._prediction(scores.image[row], p_value, anomaly_map, None, seen, zoom)
            by_part = tuple(float(one.image[row]) for one in found)
            light, edges = drift.look(image.resized, place)
            yield dataclasses.replace(said, scores=by_part, brightness=light, sharpness=edges)

    def judge_tiled(self, image: np.ndarray | Windows) -> Prediction:
        """Judges an image (H, W, 3) uint8, or a file of which parts are read, in tiles.

        Raises:
          UserError: the detector's maps cannot be tiled.
        """
        tiles = self._tiles(image)
        decisions, reason = self._tiled_decisions(len(tiles))
        by_part, maps = self._in_tiles(image, tiles)
        whole = decisions is not self._decisions
        p_values = decisions.p_values(by_part.max(axis=1, keepdims=True) if whole else by_part)
        p_value = None if p_values is None else tiling.family_wise(p_values)
        score = np.max(by_part.mean(axis=0))  # NaN if one is
        pixels = np.mean(maps, axis=0)
        return self._prediction(score, p_value, pixels, reason, decisions=decisions)

    def _tiled_decisions(self, count: int) -> tuple[Decisions, str | None]:
        """What decides about an image of so many tiles, and why nothing can; None if it can.

        Images that were held out and judged in as many tiles decide; otherwise those of one look.
        """
        if not (self.thresholds and self._decisions.counts) or self.threshold is not None:
            return self._decisions, None
        if self._tiled is None and not self._without_tiles:
            try:
                self._tiled = self._fit_tiled()
            except UserError as error:
                self._without_tiles = str(error)
        if self._tiled and count <= self._tiled[0]:
            return self._tiled[1], None
        reason = tiling.indecision(count, self.thresholds)
        why = self._without_tiles or "the largest of them has fewer tiles"
        return self._decisions, reason and f"{reason} (held-out images in tiles: {why})"

    def _fit_tiled(self) -> tuple[int, Decisions]:
        """Judges the held-out images in tiles, each by the part that has not seen it."""

        def judge(part: int, image: np.ndarray | Windows) -> tuple[int, float, float]:
            alone = copy.copy(self)
            alone.parts = self.parts[part : part + 1]
            tiles = alone._tiles(image)
            scores, maps = alone._in_tiles(image, tiles)
            return len(tiles), float(scores.max()), float(maps[0].max())

        if self.held_out is None:
            raise UserError("they are not at hand")
        found = self.held_out.scores(judge)
        fitted = [
            part.fitted._replace(image=image, peak=peak)
            for part, image, peak in zip(self.parts, found.image, found.peak, strict=True)
        ]
        made = decisions(fitted, self.model.config, self.threshold)
        log.info("in tiles: %s", made.card["meaning"])
        return found.most_tiles, made

    def _tiles(self, image: np.ndarray | Windows) -> tiling.Tiles:
        shape = image.shape[:2] if isinstance(image, np.ndarray) else image.size
        return tiling.plan(shape, self.canvas.shape, self._map_shapes)

    def _in_tiles(
        self, image: np.ndarray | Windows, tiles: tiling.Tiles
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """The scores of tiles by every part (K, tiles), and K maps (H, W)."""
        pieces = tiling.cut(image, tiles)
        scores: list[np.ndarray] = []

        def tile_maps() -> Iterator[list[np.ndarray]]:
            while batch := list(itertools.islice(pieces, self.batch_size)):
                maps = self.log_probs(batch)
                scores.append(np.stack([one.image for one in self._scores(maps)]))
                for row in range(len(batch)):
                    yield [scale[row] for part in maps for scale in part]

        stitched = [scale[None] for scale in tiling.stitch(tiles, tile_maps())]
        scales = len(self._map_shapes)
        whole = [stitched[part * scales :][:scales] for part in range(len(self.parts))]
        height, width = tiles.size
        maps = [
            one.pixel[0, :height, :width].astype(np.float32)
            for one in self._scores(whole, tiles.padded)
        ]
        return np.concatenate(scores, axis=1), maps

    def log_probs(self, images: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Returns likelihood maps of up to ``batch_size`` resized images: L arrays (N, h, w).

        Every part of the detector has its own.
        """
        pixels = np.stack(images)
        # Padded to powers of 2, so that one image costs one and few programs are compiled.
        size = min(1 << (len(pixels) - 1).bit_length(), max(self.batch_size, len(pixels)))
        padded = np.resize(pixels, (size, *pixels.shape[1:]))
        image = transforms.normalize(padded, self.model.mean, self.model.std)
        batch = self.model.encode(self.model.encoder.variables, image)
        found = [self.model.evaluator.log_probs(part.variables, batch) for part in self.parts]
        return [[scale[: len(images)] for scale in maps] for maps in found]

    def _scores(
        self, log_probs: Sequence[Sequence[np.ndarray]], size: tuple[int, int] | None = None
    ) -> list[Scores]:
        """The scores of N images by every part."""
        return [
            self.model.evaluator.scores(maps, part.fitted.calibration, size)
            for maps, part in zip(log_probs, self.parts, strict=True)
        ]

    def _prediction(
        self,
        score: float,
        p_value: float | None,
        pixels: np.ndarray,
        reason: str | None = None,
        seen: Box | None = None,
        zoom: float = 1.0,
        decisions: Decisions | None = None,
    ) -> Prediction:
        """Decides; ``zoom`` are the pixels of what was seen for one pixel of the canvas."""
        if not self.thresholds:
            return Prediction(float(score), None, None, pixels, (), NO_HOLDOUT)
        decisions = decisions or self._decisions
        card = self.thresholds if decisions is self._decisions else decisions.card
        found = () if card["pixel"] is None else regions.find(pixels, card["pixel"], seen)
        reason = decisions.reason or (None if card["decided_by"] == GIVEN else reason)
        if np.isnan(score):
            p_value, reason = None, "its score is not a number: the detector overflowed on it"
        anomalous = by = None
        if reason:
            self._log_indecision(reason)
        else:
            by = card["decided_by"]
            decided = decisions.anomalous(np.array([score]), np.array([p_value]))
            anomalous = None if decided is None else bool(decided[0])
        setting = self.model.config.eval.min_region
        least = regions.least_area(setting, pixels.size, zoom * self.position)
        found = regions.drop_small(found, least, bool(anomalous))
        return Prediction(float(score), p_value, anomalous, pixels, found, reason, decided_by=by)

    def _log_indecision(self, reason: str) -> None:
        """Says why there are no decisions, once and not for every image."""
        if reason not in self._logged:
            self._logged.add(reason)
            log.warning("no decision: %s", reason)
