"""Heat map, overlay and raw map of one image, in the colours of the evaluation's pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy import ndimage

from flowad_jax.inference.regions import Region
from flowad_jax.report import figures as draw

HEADROOM = 2.0  # end of the colour scale, in pixel thresholds
STRIP = 1 << 20  # pixels coloured at once; as floats they take ten times the memory of the image


def scale_of(thresholds: Mapping[str, Any]) -> dict[str, Any] | None:
    """Colour scale for all images of a detector, from 0 to twice its threshold, if any.

    No image has a say in it, so that a colour means the same everywhere: in the middle is the
    threshold, as in the pictures of an evaluation is the end of what is usual.
    """
    pixel = thresholds.get("pixel")
    if pixel is None or not pixel > 0:
        return None
    return {"low": 0.0, "high": HEADROOM * pixel, "from": f"{HEADROOM:g} x pixel threshold"}


def scale_to(highest: float) -> dict[str, Any]:
    """Colour scale for a detector without thresholds, from 0 to the highest value of some maps."""
    high = highest if 0 < highest < math.inf else 1.0
    return {"low": 0.0, "high": high, "from": "largest value of the first images"}


def heatmap(values: np.ndarray, high: float) -> Image.Image:
    """A map (H, W) in colours, from 0 to ``high``."""
    return _in_strips(values, lambda rows: draw.HEAT(_level(values[rows], high))[..., :3])


def overlay(
    image: np.ndarray,
    values: np.ndarray,
    high: float,
    threshold: float | None,
    regions: Sequence[Region] | None = None,
) -> Image.Image:
    """The image under its heat map, with the outlines of its regions.

    Args:
      image: (H, W, 3) uint8.
      values: (H, W) its map.
      high: end of the colour scale.
      threshold: of the regions; None draws no outlines.
      regions: those to outline; None for all.
    """
    picture = _in_strips(values, lambda rows: draw.blend(image[rows], _level(values[rows], high)))
    if threshold is not None:
        inside = values > threshold
        if regions is not None:
            boxes = np.zeros_like(inside)
            for left, top, right, bottom, *_ in regions:
                boxes[top:bottom, left:right] = True
            inside &= boxes
        # Thicker on large images, which are looked at from further away.
        width = max(1, round(max(values.shape) / 500))
        # Pixels beyond the border count as inside: a region that leaves the image stays open there.
        core = ndimage.binary_erosion(inside, iterations=width, border_value=1)
        line = Image.fromarray(inside & ~core)
        picture.paste(ImageColor.getrgb(draw.CONTOUR), (0, 0), line)
    return picture


def captioned(picture: Image.Image, text: str, high: float, threshold: float | None) -> Image.Image:
    """A picture with a strip below it: a line of text, and the colour scale from 0 to ``high``.

    The threshold is marked in the colour of the outlines. A picture that is narrower than its text
    stays as it is, with dark ground beside it.
    """
    strip = min(max(min(picture.size) // 16, 24), 120)
    large, small = (ImageFont.load_default(round(share * strip)) for share in (0.45, 0.32))
    pad, bar = strip // 4, 5 * strip
    width = max(picture.width, round(large.getlength(text)) + bar + 4 * pad)
    whole = Image.new("RGB", (width, picture.height + strip), draw.RIM)
    whole.paste(picture, (0, 0))
    pen, top, left = ImageDraw.Draw(whole), picture.height, width - bar - pad
    pen.text((pad, top + strip / 2), text, "white", large, anchor="lm")
    colours = heatmap(np.linspace(0, high, bar)[None], high).resize((bar, strip // 3))
    whole.paste(colours, (left, top + strip // 6))
    labels = {0.0: ("0", "la"), 1.0: (f"{high:.3g}", "ra")}
    if threshold is not None and 0 < threshold < high:
        labels[threshold / high] = (f"{threshold:.3g}", "ma")
        x = left + bar * threshold / high
        pen.line(
            (x, top + strip // 12, x, top + 7 * strip // 12), draw.CONTOUR, max(1, strip // 16)
        )
    for share, (label, anchor) in labels.items():
        pen.text((left + share * bar, top + 0.6 * strip), label, "white", small, anchor=anchor)
    return whole


def save_map(path: Path, values: np.ndarray) -> None:
    """Writes a map (H, W) as 32-bit floats, as a TIFF or NumPy file by the suffix of the path."""
    values = np.ascontiguousarray(values, np.float32)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        # Pillow hands the name of a file on to libtiff, where it has to be UTF-8.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            Image.fromarray(values).save(file, "TIFF", compression="tiff_adobe_deflate")


def _level(values: np.ndarray, high: float) -> np.ndarray:
    return np.clip(values / high, 0, 1)


def _in_strips(values: np.ndarray, colour: Callable[[slice], np.ndarray]) -> Image.Image:
    """Colours a picture (H, W, 3) in [0, 1] some rows at a time."""
    height, width = values.shape
    step = max(1, STRIP // width)
    picture = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, step):
        rows = slice(top, top + step)
        picture[rows] = np.rint(255 * colour(rows))
    return Image.fromarray(picture)
