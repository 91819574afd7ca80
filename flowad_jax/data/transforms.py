"""From a photograph to the encoder's input: resize, rotate, sharpen, normalise.

Defaults are those of the CFLOW-AD reference; each thing that it does differently from what one
would expect is a named choice here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance

from flowad_jax.canvas import Box, Canvas, CanvasLike
from flowad_jax.errors import UserError
from flowad_jax.lookup import nearest

FILTERS = {name.lower(): value for name, value in Image.Resampling.__members__.items()}
AT_ONCE = 2**24  # pixels of an image that is resized as a whole

Triple = tuple[float, float, float]


def resampling(name: str) -> Image.Resampling:
    """Returns the Pillow filter of a name such as ``"lanczos"``, which the reference uses."""
    if name not in FILTERS:
        raise UserError(f"data.filter={name!r} is unknown: {nearest(str(name), FILTERS)}")
    return FILTERS[name]


def resize_image(image: np.ndarray, size: CanvasLike, filter: str = "lanczos") -> np.ndarray:
    """Brings (H, W, 3) uint8 to a canvas, see `Canvas`; a number stands for a square.

    Rows come first where there are more than `AT_ONCE` pixels, as in `images.read_resized`; else
    the order is that of `resize`.
    """
    chosen, canvas = resampling(filter), Canvas.of(size)
    seen, place = canvas.seen(image.shape[:2]), canvas.place(image.shape[:2])
    resized = Image.fromarray(image[seen.rows, seen.columns])
    if seen.height * seen.width > AT_ONCE:
        resized = resized.resize((place.width, seen.height), chosen)
    return padded(np.asarray(resize(resized, (place.width, place.height), chosen)), place, canvas)


def resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Resizes to (width, height) as Pillow 13 does, whatever its version.

    It rounds between both passes, so that their order shows, and earlier versions always begin with
    the rows: scores of a narrow, tall image differed by 0.5 %.
    """
    (width, height), (wide, tall) = image.size, size
    columns_first = height - tall > 2 * max(width - wide, 0)
    between = (width, tall) if columns_first else (wide, height)
    return image.resize(between, resample).resize(size, resample)


def resize_mask(mask: np.ndarray, size: CanvasLike) -> np.ndarray:
    """Brings (H, W) bool to a canvas by the nearest pixel; what is padded is no defect."""
    return nearest_pixel(mask.astype(np.uint8), Canvas.of(size)).astype(bool)


def nearest_pixel(values: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Brings (H, W) to a canvas by the nearest pixel; 0 beside the image."""
    seen, place = canvas.seen(values.shape), canvas.place(values.shape)
    part = Image.fromarray(values[seen.rows, seen.columns])
    resized = part.resize((place.width, place.height), Image.Resampling.NEAREST)
    whole = np.zeros(canvas.shape, values.dtype)
    whole[place.rows, place.columns] = np.asarray(resized)
    return whole


def padded(image: np.ndarray, place: Box, canvas: Canvas) -> np.ndarray:
    """Mirrors (h, w, ...) at its borders until it fills the canvas from its place on that.

    What is mirrored looks like the images; one colour would be the likeliest of all features.
    """
    if place[2:] == canvas.shape:
        return image
    below, right = canvas.height - place.top, canvas.width - place.left
    pads = [(place.top, below - place.height), (place.left, right - place.width)]
    return np.pad(image, [*pads, *[(0, 0)] * (image.ndim - 2)], "reflect")


def rotate(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Turns an image or a mask counter-clockwise by the nearest pixel; corners become black."""
    if pixels.dtype == bool:
        return rotate(pixels.astype(np.uint8), degrees).astype(bool)
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.NEAREST))


def sharpen(image: np.ndarray, factor: float = 2.0) -> np.ndarray:
    """Moves (H, W, 3) uint8 away from its smoothed self; 1 leaves it, 2 is what SSNF uses."""
    return np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(factor))


def jitter(image: np.ndarray, brightness: float, contrast: float) -> np.ndarray:
    """Multiplies the values of (H, W, 3) uint8, then their distance from the mean grey."""
    brighter = ImageEnhance.Brightness(Image.fromarray(image)).enhance(brightness)
    return np.asarray(ImageEnhance.Contrast(brighter).enhance(contrast))


def normalize(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Returns ``(image / 255 - mean) / std`` of (..., 3) uint8 in float32."""
    scaled = image.astype(np.float32) / np.float32(255)
    return (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def norm(name: str, mean: Triple, std: Triple) -> tuple[Triple, Triple]:
    """Returns the mean and std that a named normalisation uses for those of an encoder.

    ``"stc"`` is what the CFLOW-AD reference uses on ShanghaiTech; ``"mean_as_std"`` is its mistake
    for encoders from timm, which divides by the mean.
    """
    norms = {
        "encoder": (mean, std),
        "stc": ((0.5, 0.5, 0.5), (0.225, 0.225, 0.225)),
        "mean_as_std": (mean, mean),
    }
    if name not in norms:
        raise UserError(f"data.norm={name!r} is unknown: {nearest(str(name), norms)}")
    return norms[name]
