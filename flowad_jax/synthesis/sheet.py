"""A contact sheet: what synthetic anomalies look like, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flowad_jax.synthesis.types import Synthesiser, Synthetic, draw_source

_ROWS = ("original", "synthetic", "mask", "difference x4")
_GAIN = 4
_GAP, _LEFT, _TOP, _LETTERS = 6, 92, 22, 12  # pixels
_INK, _PAPER = (32, 33, 36), (255, 255, 255)


def samples(
    images: Sequence[np.ndarray],
    lenders: Sequence[np.ndarray],
    synthesise: Synthesiser,
    count: int,
    seed: int,
) -> list[tuple[np.ndarray, Synthetic]]:
    """Makes ``count`` anomalies from normal images, taken in turn.

    Args:
      images: (H, W, 3) uint8 each.
      lenders: the same images at the size that ``synthesise`` wants to take material from.
      synthesise: how.
      count: how many.
      seed: of all randomness; every sample has a generator of its own.

    Returns:
      Pairs of the normal image and what became of it.
    """
    made = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        target = number % len(images)
        source = draw_source(target, len(images), rng)
        made.append((images[target], synthesise(images[target], lenders[source], rng)))
    return made


def draw(made: Sequence[tuple[np.ndarray, Synthetic]], cell: int = 160) -> Image.Image:
    """Draws a column per sample; the difference is the largest of RGB, brightened.

    Args:
      made: what ``samples`` returns.
      cell: pixels of the longer side of a picture.
    """
    size = (_LEFT + len(made) * (cell + _GAP), _TOP + len(_ROWS) * (cell + _GAP))
    sheet = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LETTERS)
    for row, name in enumerate(_ROWS):
        at = (_GAP, _TOP + row * (cell + _GAP) + cell // 2)
        pen.text(at, name, _INK, font, anchor="lm")
    for column, (original, synthetic) in enumerate(made):
        left = _LEFT + column * (cell + _GAP)
        name = synthetic.kind if synthetic.changed else f"{synthetic.kind} (unchanged)"
        pen.text((left + cell // 2, _TOP // 2), name, _INK, font, anchor="mm")
        for row, picture in enumerate(_pictures(original, synthetic)):
            small = _fit(picture, cell)
            top = _TOP + row * (cell + _GAP)
            corner = (left + (cell - small.width) // 2, top + (cell - small.height) // 2)
            sheet.paste(small, corner)
    return sheet


def _pictures(original: np.ndarray, synthetic: Synthetic) -> tuple[np.ndarray, ...]:
    mask = np.rint(synthetic.mask * 255).astype(np.uint8)
    change = np.abs(synthetic.image.astype(np.int16) - original).max(axis=-1)
    brightened = np.minimum(change * _GAIN, 255).astype(np.uint8)
    return original, synthetic.image, mask, brightened


def _fit(pixels: np.ndarray, cell: int) -> Image.Image:
    """Scales to the cell, keeping the aspect ratio."""
    height, width = pixels.shape[:2]
    scale = cell / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return Image.fromarray(pixels).convert("RGB").resize(size, Image.Resampling.BOX)
