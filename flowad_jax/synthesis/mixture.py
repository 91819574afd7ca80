"""SANFlow's mixture: normal images, soft blends with bars and disks, and small scars.

Kim et al.: "SANFlow: Semantic-Aware Normalizing Flow for Anomaly Detection" (NeurIPS 2023), the
training images of its released code. The reference reads 10,000 mask files, which were never
released; masks drawn here have their statistics. What its generator of bars does not survive, one
longer than the canvas, is shortened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from flowad_jax.lookup import check_choice
from flowad_jax.synthesis.paste import colour_jitter, cut, paste, rotate
from flowad_jax.synthesis.types import (
    Jitter,
    Synthesiser,
    Synthetic,
    check_images,
    override,
    random_integer,
    unchanged,
)

KINDS = ("normal", "rectangle", "circle", "scar")
_CANVAS, _FINAL, _MARGIN = 128, 256, 2  # pixels of a mask


@dataclass(frozen=True)
class Settings:
    """Options of the mixture.

    Attributes:
      kinds: what is drawn, each as likely.
      jitter: strength of the colour jitter, see ``paste.colour_jitter``.
      jitter_per_sample: draw each image's strength from U(0, jitter). The reference draws one for
        a whole run: turn this off and give ``jitter`` that number.
      legacy: training images are resized bilinearly, as released, whatever ``data.filter`` says.
    """

    kinds: Annotated[tuple[str, ...], {"minItems": 1}] = KINDS
    jitter: Jitter = 0.2
    jitter_per_sample: bool = True
    legacy: bool = False


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
    return Mixture(settings)


@dataclass(frozen=True)
class Mixture:
    """The synthesiser.

    Attributes:
      settings: options.
      source_scale: side of the source that it wants, in sides of the target.
    """

    settings: Settings
    source_scale: ClassVar[float] = 1.5

    @property
    def filter(self) -> str | None:
        """Pillow's filter for training images; None for that of all images."""
        return "bilinear" if self.settings.legacy else None

    def __call__(
        self, target: np.ndarray, source: np.ndarray, rng: np.random.Generator
    ) -> Synthetic:
        """Draws one of the kinds and applies it.

        Args:
          target: (H, W, 3) uint8, a normal image.
          source: what is blended in: a piece of the target's size is cut from it, once it has
            ``source_scale`` times the sides of the target. It is scaled if it has not.
          rng: source of all randomness.

        Returns:
          The image and its mask: the share of the source for blends, 0 or 1 for scars.

        Raises:
          UserError: an image is not (H, W, 3) uint8.
        """
        check_images(target, source)
        settings = self.settings
        kind = settings.kinds[random_integer(rng, 0, len(settings.kinds))]
        if kind == "normal":
            return unchanged(target, kind)
        jitter = settings.jitter
        strength = rng.uniform(0, jitter) if settings.jitter_per_sample else jitter
        if kind == "scar":
            image, mask = _scar(target, strength, rng)
        else:
            mask = soft_mask(kind, target.shape[:2], rng)
            image = _blend(target, source, mask, strength, rng)
        if np.array_equal(image, target):
            return unchanged(target, kind)
        return Synthetic(image, mask, kind, True)


def _blend(
    target: np.ndarray,
    source: np.ndarray,
    mask: np.ndarray,
    strength: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Shows a mirrored and recoloured piece of the source to the share ``mask``."""
    height, width = (int(Mixture.source_scale * side) for side in mask.shape)
    if source.shape[:2] != (height, width):
        scaled = Image.fromarray(source).resize((width, height), Image.Resampling.BILINEAR)
        source = np.asarray(scaled)
    other = np.ascontiguousarray(_flip(cut(source, mask.shape, rng), rng))
    other = colour_jitter(other, strength, rng).astype(np.float32)
    mixed = target + mask[..., None] * (other - target)
    return np.rint(mixed).astype(np.uint8)


def _scar(
    target: np.ndarray, strength: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pastes a small rotated piece of the image itself.

    It is 1/128 to 1/16 of the image high and 1/64 to 1/8 wide.
    """
    height, width = target.shape[:2]
    size = (
        max(random_integer(rng, height // 128, height // 16 + 1), 1),
        max(random_integer(rng, width // 64, width // 8 + 1), 1),
    )
    pixels = colour_jitter(cut(target, size, rng), strength, rng)
    pixels, inside = rotate(pixels, rng.uniform(-45, 45))
    top = random_integer(rng, 0, height - inside.shape[0])
    left = random_integer(rng, 0, width - inside.shape[1])
    return paste(target, pixels, inside, top, left)


def soft_mask(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draws a mask.

    Args:
      kind: ``"circle"``, a small disk, or ``"rectangle"``, a rotated bar.
      shape: height and width of the mask.
      rng: source of all randomness.

    Returns:
      ``shape`` float32 in [0, 1].
    """
    canvas = Image.fromarray(_circle(rng) if kind == "circle" else _bar(rng))
    # Pillow leaves the outermost two pixels as they are, so the border gets a margin meanwhile.
    blurred = ImageOps.crop(ImageOps.expand(canvas, _MARGIN).filter(ImageFilter.BLUR), _MARGIN)
    soft = blurred.resize((_FINAL, _FINAL), Image.Resampling.BICUBIC)
    resized = np.asarray(soft.resize(shape[::-1], Image.Resampling.BILINEAR))
    return np.ascontiguousarray(_flip(resized, rng), np.float32) / np.float32(255)


def _flip(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrors along either axis with probability 1/2 each."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            pixels = np.flip(pixels, axis)
    return pixels


def _circle(rng: np.random.Generator) -> np.ndarray:
    x, y = rng.uniform(10, 118, 2)
    radius = rng.uniform(10, 15)
    grid = np.arange(_CANVAS)
    inside = np.hypot(grid[:, None] - y, grid - x) <= radius
    return inside.astype(np.uint8) * 255


def _bar(rng: np.random.Generator) -> np.ndarray:
    height, width = int(rng.integers(32, 128)), int(rng.integers(8, 23))
    bar = Image.new("L", (width, height), 255)
    bar = bar.rotate(rng.uniform(-90, 90), Image.Resampling.NEAREST, expand=True)
    longest = _CANVAS - 1
    if max(bar.size) > longest:
        wide, tall = bar.size
        bar = bar.resize((min(wide, longest), min(tall, longest)), Image.Resampling.BICUBIC)
    canvas = np.zeros((_CANVAS, _CANVAS), np.uint8)
    top = random_integer(rng, 0, _CANVAS - bar.height)
    left = random_integer(rng, 0, _CANVAS - bar.width)
    canvas[top : top + bar.height, left : left + bar.width] = np.asarray(bar)
    return canvas
