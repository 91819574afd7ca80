"""What goes into a detector and what it says about it."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from flowad_jax.data.images import read_image
from flowad_jax.errors import UserError, printable
from flowad_jax.evaluation.decisions import ESTIMATE
from flowad_jax.inference.regions import Region

NOTEBOOK_SIDE = 512  # of the pictures that notebooks show


class Shown(NamedTuple):
    """What the overlay of a prediction needs beside its map.

    Attributes:
      image: (H, W, 3) uint8, or the path of a file.
      white: value of white in files of more than 8 bits.
      thresholds: of the detector.
    """

    image: np.ndarray | str
    white: int
    thresholds: Mapping[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What a detector says about one image.

    Attributes:
      score: larger is more anomalous.
      p_value: how often a normal image scores as high; None if training held no images out.
      anomalous: the decision, see `Decisions`; None where that cannot be decided, which is not the
        same as normal.
      map: (H, W) float32 at the image's own size.
      regions: where the map exceeds the pixel threshold, highest peak first.
      reason: why there is no decision; None if there is one.
      path: the file, as it was given; None for an image that is no file.
      shown: for `overlay`.
      decided_by: what the decision rests on, a ``"promise"`` about false alarms, an ``"estimate"``
        of them, or a ``"threshold"`` that was given.
      scores: by every part of the detector; `score` is their mean.
      brightness, sharpness: of the image on the canvas, see `flowad_runtime.drift.look`; None of
        images in tiles.
    """

    score: float
    p_value: float | None
    anomalous: bool | None
    map: np.ndarray
    regions: tuple[Region, ...]
    reason: str | None = None
    path: str | None = None
    shown: Shown | None = None
    decided_by: str | None = None
    scores: tuple[float, ...] = ()
    brightness: float | None = None
    sharpness: float | None = None

    def overlay(self) -> Image.Image:
        """Draws the heat map and the regions over the image, and the verdict and colours below it.

        A file is read again.

        Raises:
          UserError: the file is gone, or has another size now.
        """
        from flowad_jax.inference import pictures  # matplotlib takes its time

        if self.shown is None:
            raise UserError("this prediction does not know its image: Detector.predict makes those")
        image, white, thresholds = self.shown
        pixels = read_image(image, white) if isinstance(image, str) else image
        if pixels.shape[:2] != self.map.shape:
            raise UserError(f"'{self.path}' is not the image any more that was judged")
        scale = pictures.scale_of(thresholds) or pictures.scale_to(float(self.map.max()))
        limits = scale["high"], thresholds.get("pixel")
        picture = pictures.overlay(pixels, self.map, *limits, self.regions)
        return pictures.captioned(picture, self.describe(), *limits)

    def describe(self) -> str:
        """Verdict, score and p-value in a few words; an estimate is called one."""
        verdict = {True: "anomalous", False: "normal", None: "undecided"}[self.anomalous]
        verdict += " (estimate)" * (self.decided_by == ESTIMATE)
        score = f"score {self.score:.4g}" if math.isfinite(self.score) else "no score"
        p_value = "no p-value" if self.p_value is None else f"p {self.p_value:.3g}"
        return f"{verdict}, {score}, {p_value}"

    def __repr__(self) -> str:
        name = f"{printable(self.path)}: " if self.path else ""
        found = f"{len(self.regions)} region{'s' * (len(self.regions) != 1)}"
        why = f", {self.reason}" if self.reason else ""
        return f"Prediction({name}{self.describe()}, {found}{why})"

    def _repr_png_(self) -> bytes | None:
        """The overlay, for notebooks; None if the image is gone."""
        try:
            picture = self.overlay()
        except UserError:
            return None
        picture.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        file = io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()

    def _repr_html_(self) -> str:
        """The overlay above one line of text, for notebooks."""
        picture = self._repr_png_()
        data = base64.b64encode(picture).decode() if picture else ""
        image = f'<img src="data:image/png;base64,{data}"><br>' if picture else ""
        return f"<div>{image}<code>{html.escape(repr(self))}</code></div>"


class LoadedImage(NamedTuple):
    """An image as a detector takes it."""

    resized: np.ndarray  # (h, w, 3) uint8, as the encoder sees it
    size: tuple[int, int]  # (H, W) of the image
    pixels: np.ndarray | None  # (H, W, 3) uint8, or None if they were too many to keep
