"""CutPaste: a patch of the image, pasted elsewhere into the same image.

Li, Sohn, Yoon, Pfister: "CutPaste: Self-Supervised Learning for Anomaly Detection and
Localization" (CVPR 2021), section 2.2. The lengths of scars hold for images of 256 pixels and
are scaled with the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from flowad_jax.lookup import check_choice
from flowad_jax.schema import within
from flowad_jax.synthesis.paste import colour_jitter, cut, paste, rotate
from flowad_jax.synthesis.types import (
    Count,
    Jitter,
    Share,
    Synthesiser,
    Synthetic,
    as_large,
    check_order,
    override,
    random_integer,
    unchanged,
)

KINDS = ("patch", "scar")
_SIDE = 256  # pixels of the image for which the paper gives lengths
_WIDTH, _LENGTH = (2, 16), (10, 25)


@dataclass(frozen=True)
class Settings:
    """Options of CutPaste.

    Attributes:
      kinds: ``"patch"``, ``"scar"`` or both, each as likely.
      area: bounds of a patch's share of the image.
      aspect: largest ratio of width to height; the smallest is the one below.
      least_aspect: smallest ratio of width to height.
      jitter: strength of the colour jitter, see ``paste.colour_jitter``.
      degrees: bound of a scar's rotation.
      same_image: cut from the target, as published, or from the source.
      retries: further attempts after one that changed nothing.
    """

    kinds: Annotated[tuple[str, ...], {"minItems": 1}] = KINDS
    area: tuple[Share, Share] = (0.02, 0.15)
    aspect: Annotated[float, within(1, 100)] = 3.3
    least_aspect: Annotated[float, within(0.01, 1)] = 0.3
    jitter: Jitter = 0.1
    degrees: float = 45.0
    same_image: bool = True
    retries: Count = 4


def build(**options: Any) -> Synthesiser:
    """Makes a synthesiser.

    Args:
      **options: fields of ``Settings``.

    Raises:
      UserError: unknown option or kind, or a value out of range.
    """
    settings = override(Settings(), options)
    for kind in settings.kinds:
        check_choice("synthesis.kinds", kind, KINDS)
    check_order(settings, "area")
    return partial(cutpaste, settings=settings)


def cutpaste(
    target: np.ndarray, source: np.ndarray, rng: np.random.Generator, settings: Settings
) -> Synthetic:
    """Pastes a patch or a scar.

    Args:
      target: (H, W, 3) uint8, a normal image.
      source: another one, used if ``settings.same_image`` is false.
      rng: source of all randomness.
      settings: options.

    Returns:
      The image and the place of what was pasted, 0 or 1.

    Raises:
      UserError: an image is not (H, W, 3) uint8.
    """
    source = as_large(target, source)
    kind = settings.kinds[random_integer(rng, 0, len(settings.kinds))]
    shape = target.shape[:2]
    for _ in range(1 + settings.retries):
        size = _patch_size(shape, settings, rng) if kind == "patch" else _scar_size(shape, rng)
        pixels = cut(target if settings.same_image else source, size, rng)
        degrees = rng.uniform(-settings.degrees, settings.degrees) if kind == "scar" else 0.0
        pixels, inside = rotate(colour_jitter(pixels, settings.jitter, rng), degrees)
        top = random_integer(rng, 0, shape[0] - inside.shape[0] + 1)
        left = random_integer(rng, 0, shape[1] - inside.shape[1] + 1)
        image, mask = paste(target, pixels, inside, top, left)
        if not np.array_equal(image, target):
            return Synthetic(image, mask, f"cutpaste.{kind}", True)
    return unchanged(target, f"cutpaste.{kind}")


def _patch_size(
    shape: tuple[int, int], settings: Settings, rng: np.random.Generator
) -> tuple[int, int]:
    area = rng.uniform(*settings.area) * shape[0] * shape[1]
    tall = rng.random() < 0.5
    aspect = rng.uniform(settings.least_aspect, 1) if tall else rng.uniform(1, settings.aspect)
    return _within(shape, np.sqrt(area / aspect), np.sqrt(area * aspect))


def _scar_size(shape: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    scale = min(shape) / _SIDE
    return _within(shape, rng.uniform(*_LENGTH) * scale, rng.uniform(*_WIDTH) * scale)


def _within(shape: tuple[int, int], height: float, width: float) -> tuple[int, int]:
    """Whole pixels, at least one and at most the image."""
    return min(max(round(height), 1), shape[0]), min(max(round(width), 1), shape[1])
