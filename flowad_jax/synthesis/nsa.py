"""Natural synthetic anomalies: patches of another image, blended in without a seam.

Schlüter, Tan, Hou, Kainz: "Natural Synthetic Anomalies for Self-supervised Anomaly Detection and
Localization" (ECCV 2022), with the settings of SSNF, which differ in the blend of textures.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.synthesis import labels, patches
from flowad_jax.synthesis.labels import Change, odd
from flowad_jax.synthesis.nsa_constants import Constants, constants
from flowad_jax.synthesis.patches import Patch
from flowad_jax.synthesis.poisson import seamless_clone
from flowad_jax.synthesis.types import (
    Synthesiser,
    Synthetic,
    check_choice,
    check_pair,
    check_range,
    overridden,
    unchanged,
)

BLENDS = ("normal", "mixed", "by_class", "either", "paste", "interpolate")
_LEAST_PIXELS = 50  # smaller patches are dropped


@dataclass(frozen=True)
class Settings:
    """What is the same for all categories.

    Attributes:
      gamma: shape, scale and offset of a patch's half-sides as shares of the image sides; None
        draws them uniformly.
      resize: scale patches.
      shift: put patches somewhere else than where they were cut.
      blend: ``"normal"`` takes the patch's gradients (SSNF, every category); ``"mixed"`` the
        stronger ones of patch and target; ``"by_class"`` is mixed for textures and normal for
        objects (NSA; better on textures); ``"either"`` tosses a coin; ``"paste"`` copies;
        ``"interpolate"`` mixes with a random share.
      label: ``"binary"``, ``"intensity"``, ``"logistic-intensity"`` or ``"continuous"``, see
        ``labels.label``.
      tolerance: change in grey levels that does not count as anomalous.
      draws: places to try for one patch.
      retries: further attempts after one that changed nothing.
      filter_scale: size of the median filters and least size of a patch relative to the published
        ones, which were tuned on images of 224 to 256 pixels.
      legacy_shift: see ``poisson.seamless_clone``.
    """

    gamma: tuple[float, float, float] | None = (2, 0.05, 0.03)
    resize: bool = True
    shift: bool = True
    blend: str = "normal"
    label: str = "binary"
    tolerance: float = 1.0
    draws: int = 200
    retries: int = 4
    filter_scale: float = 1.0
    legacy_shift: bool = False


def build(dataset: str = "", category: str = "", **options: Any) -> Synthesiser:
    """Makes the synthesiser of a category.

    Args:
      dataset: ``"mvtec"``, ``"btad"`` and ``"dagm"`` have published constants per category; all
        else has those of a texture, which ask nothing of the image.
      category: a category of that data set.
      **options: fields of ``Settings``, and of ``Constants`` to replace published ones.

    Raises:
      UserError: unknown category or option, or a value out of range.
    """
    fields = {field.name for field in dataclasses.fields(Constants)}
    numbers = {name: value for name, value in options.items() if name in fields}
    others = {name: value for name, value in options.items() if name not in fields}
    settings, own = (
        overridden(Settings(), others),
        overridden(constants(dataset, category), numbers),
    )
    _check(settings, own)

    def synthesise(target: np.ndarray, source: np.ndarray, rng: np.random.Generator) -> Synthetic:
        return nsa(target, source, rng, own, settings)

    return synthesise


def nsa(
    target: np.ndarray,
    source: np.ndarray,
    rng: np.random.Generator,
    constants: Constants,
    settings: Settings,
) -> Synthetic:
    """Blends patches of one image into another.

    As published, all of a rectangle is blended while the label ends with the objects.

    Args:
      target: (H, W, 3) uint8, a normal image.
      source: another one of the same category; of another size, it is scaled to the target's.
      rng: source of all randomness.
      constants: those of the category.
      settings: those of all categories.

    Returns:
      The image and its label; ``changed`` is false if no attempt left a visible trace, be it
      that no patch met the constraints or that the images are alike.

    Raises:
      UserError: an image is not (H, W, 3) uint8.
    """
    target, source = check_pair(target, source)
    kernel = odd(7, settings.filter_scale)
    masks = [patches.object_mask(i, constants.background, kernel) for i in (source, target)]
    for _ in range(1 + settings.retries):
        change = _attempt(target, source, masks, constants, settings, rng)
        mask = labels.binary(change, settings.tolerance, settings.filter_scale)
        if mask.any():
            label = labels.label(
                settings.label, change, mask, constants.logistic, settings.filter_scale
            )
            return Synthetic(change.after, label, "nsa", True)
    return unchanged(target, "nsa")


def _attempt(
    target: np.ndarray,
    source: np.ndarray,
    masks: list[np.ndarray],
    constants: Constants,
    settings: Settings,
    rng: np.random.Generator,
) -> Change:
    """Blends one patch, and each further one with probability 1/2."""
    image, area = target, np.zeros(target.shape[:2], np.uint8)
    mode, factor = _mode(settings.blend, constants.texture, rng), rng.uniform(0.05, 0.95)
    for number in range(constants.max_patches):
        if number and rng.random() < 0.5:
            continue
        found = _find(source, masks, constants, settings, rng)
        if found is None:
            continue
        patch, (top, left) = found
        blended = _blend(patch.pixels, image, top, left, mode, factor, settings)
        if blended is None:
            continue
        image = blended
        rows, columns = (slice(a, a + n) for a, n in zip(found[1], patch.object.shape, strict=True))
        area[rows, columns] = patch.object | masks[1][rows, columns]
    return Change(target, image, area, factor if mode == "interpolate" else 1.0)


def _find(
    source: np.ndarray,
    masks: list[np.ndarray],
    constants: Constants,
    settings: Settings,
    rng: np.random.Generator,
) -> tuple[Patch, tuple[int, int]] | None:
    """A patch and the corner of its place."""
    patch = patches.cut(source, masks[0], constants, settings.gamma, settings.draws, rng)
    if patch is None:
        return None
    if settings.resize:
        patch = patches.scaled(patch, source.shape, constants, rng)
    if not settings.shift:
        return patch, patches.same_place(patch, source.shape)
    corner = patches.place(patch, masks[1], constants, settings.draws, rng)
    return None if corner is None else (patch, corner)


def _mode(blend: str, texture: bool, rng: np.random.Generator) -> str:
    if blend == "by_class":
        return "mixed" if texture else "normal"
    if blend == "either":
        return "mixed" if rng.random() < 0.5 else "normal"
    return blend


def _blend(
    patch: np.ndarray,
    image: np.ndarray,
    top: int,
    left: int,
    mode: str,
    factor: float,
    settings: Settings,
) -> np.ndarray | None:
    """The image with the patch in it, or None if the patch is too small."""
    height, width = patch.shape[0] - 2, patch.shape[1] - 2  # the outermost frame is not used
    if min(height, width) < 1 or height * width < _LEAST_PIXELS * settings.filter_scale**2:
        return None
    if mode in ("normal", "mixed"):
        mixed, shifted = mode == "mixed", settings.legacy_shift
        return seamless_clone(patch, image, top, left, mixed=mixed, legacy_shift=shifted)
    share = factor if mode == "interpolate" else 1.0
    inner, result = patch[1:-1, 1:-1], image.copy()
    place = result[top + 1 : top + 1 + height, left + 1 : left + 1 + width]
    place[...] = cv2.addWeighted(inner, share, place, 1 - share, 0)
    return result


def _check(settings: Settings, own: Constants) -> None:
    check_choice("blend", settings.blend, BLENDS)
    check_choice("label", settings.label, labels.LABELS)
    check_range("tolerance", settings.tolerance, 0, 254)
    check_range("draws", settings.draws, 1, 10**6)
    check_range("retries", settings.retries, 0, 10**6)
    check_range("filter_scale", settings.filter_scale, 0.1, 10)
    check_range("max_patches", own.max_patches, 1, 100)
    check_range("min_object", own.min_object, 0, 1)
    check_range("min_overlap", own.min_overlap, 0, 1)
    for number in settings.gamma or ():
        check_range("gamma", number, 0, 100)
    for name, most in (("rows", 0.5), ("columns", 0.5), ("factors", 100)):
        low, high = getattr(own, name)
        check_range(name, high, 0, most)
        check_range(name, low, 0, high)
    for pair in own.background:
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            example = "((200, 60),)"
            raise UserError(f"synthesis option background={own.background}: give pairs, {example}")
