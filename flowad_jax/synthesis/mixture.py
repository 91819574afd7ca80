"""SANFlow's mixture: normal images, soft blends with bars and disks, and small scars.

Kim et al.: "SANFlow: Semantic-Aware Normalizing Flow for Anomaly Detection" (NeurIPS 2023), the
training images of its released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from flowad_jax.synthesis.cutpaste import cut
from flowad_jax.synthesis.masks import flip, soft_mask
from flowad_jax.synthesis.paste import colour_jitter, paste, rotate
from flowad_jax.synthesis.types import (
    Synthesiser,
    Synthetic,
    check_choice,
    check_images,
    check_range,
    integer,
    overridden,
    unchanged,
)

KINDS = ("normal", "rectangle", "circle", "scar")


@dataclass(frozen=True)
class Settings:
    """Options of the mixture.

    Attributes:
      kinds: what is drawn, each as likely.
      jitter: strength of the colour jitter, see ``paste.colour_jitter``.
      jitter_per_sample: draw each image's strength from U(0, jitter). The reference draws one for
        a whole run: turn this off and give ``jitter`` that number.
    """

    kinds: tuple[str, ...] = KINDS
    jitter: float = 0.2
    jitter_per_sample: bool = True


def build(**options: Any) -> Synthesiser:
    """Makes a synthesiser.

    Args:
      **options: fields of ``Settings``.

    Raises:
      UserError: unknown option or kind, or a value out of range.
    """
    settings = overridden(Settings(), options)
    for kind in settings.kinds or ("",):
        check_choice("kind of mixture", kind, KINDS)
    check_range("jitter", settings.jitter, 0, 0.5)
    return Mixture(settings)


@dataclass(frozen=True)
class Mixture:
    """The synthesiser.

    Attributes:
      settings: options.
      lender_scale: side of the source that it wants, in sides of the target.
    """

    settings: Settings
    lender_scale: ClassVar[float] = 1.5

    def __call__(
        self, target: np.ndarray, source: np.ndarray, rng: np.random.Generator
    ) -> Synthetic:
        """See `mixture`."""
        return mixture(target, source, rng, self.settings)


def mixture(
    target: np.ndarray, source: np.ndarray, rng: np.random.Generator, settings: Settings
) -> Synthetic:
    """Draws one of the kinds and applies it.

    Args:
      target: (H, W, 3) uint8, a normal image.
      source: what is blended in: a piece of the target's size is cut from it, once it has
        `Mixture.lender_scale` times the sides of the target. It is scaled if it has not.
      rng: source of all randomness.
      settings: options.

    Returns:
      The image and its mask: the share of the source for blends, 0 or 1 for scars.

    Raises:
      UserError: an image is not (H, W, 3) uint8.
    """
    check_images(target, source)
    kind = settings.kinds[integer(rng, 0, len(settings.kinds))]
    if kind == "normal":
        return unchanged(target, kind)
    strength = rng.uniform(0, settings.jitter) if settings.jitter_per_sample else settings.jitter
    if kind == "scar":
        image, mask = _scar(target, strength, rng)
    else:
        image, mask = _blend(target, source, soft_mask(kind, target.shape[:2], rng), strength, rng)
    if np.array_equal(image, target):
        return unchanged(target, kind)
    return Synthetic(image, mask, kind, True)


def _blend(
    target: np.ndarray,
    source: np.ndarray,
    mask: np.ndarray,
    strength: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Shows a mirrored and recoloured piece of the source to the share ``mask``."""
    height, width = (int(Mixture.lender_scale * side) for side in mask.shape)
    if source.shape[:2] != (height, width):
        scaled = Image.fromarray(source).resize((width, height), Image.Resampling.BILINEAR)
        source = np.asarray(scaled)
    other = np.ascontiguousarray(flip(cut(source, mask.shape, rng), rng))
    other = colour_jitter(other, strength, rng).astype(np.float32)
    mixed = target + mask[..., None] * (other - target)
    return np.rint(mixed).astype(np.uint8), mask


def _scar(
    target: np.ndarray, strength: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pastes a small rotated piece of the image itself.

    It is 1/128 to 1/16 of the image high and 1/64 to 1/8 wide.
    """
    height, width = target.shape[:2]
    size = (
        max(integer(rng, height // 128, height // 16 + 1), 1),
        max(integer(rng, width // 64, width // 8 + 1), 1),
    )
    pixels = colour_jitter(cut(target, size, rng), strength, rng)
    pixels, inside = rotate(pixels, rng.uniform(-45, 45))
    top = integer(rng, 0, height - inside.shape[0])
    left = integer(rng, 0, width - inside.shape[1])
    return paste(target, pixels, inside, top, left)
