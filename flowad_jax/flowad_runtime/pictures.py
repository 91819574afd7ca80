"""Heat map, overlay and raw map of one image, in the colours of `flowad predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from .regions import Region

HEADROOM = 2.0  # end of the colour scale, in pixel thresholds
OUTLINE = "#3FE0FF"  # a hue that the heat map does not have
_COLOURS = (  # of matplotlib's "inferno", evenly spread
    "0000040b0724210c4a3d096557106e71196e8a226aa32c61bc3754d04545e35933f1711ff98c0afcaa0ff9c932f2e8"
    "65fcffa4"
)
_LEVELS = np.arange(256)
_KNOTS = np.frombuffer(bytes.fromhex(_COLOURS), np.uint8).reshape(-1, 3)
_HEAT = np.stack(
    [np.interp(_LEVELS, np.linspace(0, 255, len(_KNOTS)), one) for one in _KNOTS.T], axis=-1
).astype(np.uint8)
_SHARE = np.interp(_LEVELS / 255, (0.4, 0.7), (0, 255)).astype(np.uint8)  # of heat in an overlay


def scale_of(thresholds: Mapping[str, Any]) -> float | None:
    """End of the colour scale for all images of a detector; None without a pixel threshold."""
    pixel = thresholds.get("pixel")
    return HEADROOM * pixel if pixel is not None and pixel > 0 else None


def scale_to(values: np.ndarray) -> float:
    """The same for a detector without thresholds, by the map of its first image."""
    highest = float(values.max())
    return highest if 0 < highest < float("inf") else 1.0


def heatmap(values: np.ndarray, high: float) -> Image.Image:
    """A map (H, W) in colours, from 0 to ``high``."""
    return Image.fromarray(_HEAT[_level(values, high)])


def overlay(
    image: np.ndarray,
    values: np.ndarray,
    high: float,
    threshold: float | None,
    regions: Sequence[Region],
) -> Image.Image:
    """The image (H, W, 3) under its heat map, in grey where that shows, with outlined regions."""
    colour, share = Image.fromarray(image), Image.fromarray(_SHARE[_level(values, high)])
    picture = Image.composite(colour.convert("L").convert("RGB"), colour, share)
    picture = Image.composite(heatmap(values, high), picture, share.point(lambda x: x * 3 // 4))
    inside = np.zeros(values.shape, np.uint8)
    for left, top, right, bottom, *_ in regions:
        part = values[top:bottom, left:right]
        inside[top:bottom, left:right] = 255 * (part > threshold)
    whole = Image.fromarray(inside)
    width = 2 * max(1, round(max(values.shape) / 500)) + 1  # thicker on large images
    outline = ImageChops.subtract(whole, whole.filter(ImageFilter.MinFilter(width)))
    picture.paste(OUTLINE, (0, 0), outline)
    return picture


def save_map(values: np.ndarray, kind: str, file: BinaryIO) -> None:
    """Writes a map (H, W) as float32 into a ``"tiff"`` or ``"npy"`` file."""
    if kind == "npy":
        np.save(file, values)
    else:
        Image.fromarray(values).save(file, "TIFF", compression="tiff_adobe_deflate")


def _level(values: np.ndarray, high: float) -> np.ndarray:
    """Values as 8 bits; what is not a number is shown as the highest."""
    share = np.nan_to_num(values / np.float32(high), nan=1, posinf=1, neginf=0)
    return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)
