"""Natural synthetic anomalies: patches of another image, blended in without a seam.

Schlüter, Tan, Hou, Kainz: "Natural Synthetic Anomalies for Self-supervised Anomaly Detection and
Localization" (ECCV 2022), with the settings of SSNF, which differ in the blend of textures.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

import cv2
import numpy as np

from flowad_jax.lookup import check_choice
from flowad_jax.schema import within
from flowad_jax.synthesis import labels, patches
from flowad_jax.synthesis.labels import Change, odd
from flowad_jax.synthesis.nsa_constants import Constants, constants
from flowad_jax.synthesis.patches import Patch
from flowad_jax.synthesis.poisson import seamless_clone
from flowad_jax.synthesis.types import (
    Count,
    Synthesiser,
    Synthetic,
    as_large,
    check_order,
    override,
    unchanged,
)

BLENDS = ("normal", "mixed", "by_class", "either", "paste", "interpolate")
_LEAST_PIXELS = 50  # smaller patches are dropped
_Gamma = Annotated[float, within(0, 100)]


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
      legacy: patches of odd width land one column to the right of their label, as released.
    """

    gamma: tuple[_Gamma, _Gamma, _Gamma] | None = (2, 0.05, 0.03)
    resize: bool = True
    shift: bool = True
    blend: str = "normal"
    label: str = "binary"
    tolerance: Annotated[float, within(0, 254)] = 1.0
    draws: Annotated[int, within(1, 10**6)] = 200
    retries: Count = 4
    filter_scale: Annotated[float, within(0.1, 10)] = 1.0
    legacy: bool = False


def build(dataset: str | None = None, category: str | None = None, **options: Any) -> Synthesiser:
    """Makes the synthesiser of a category.

    Args:
      dataset: ``"mvtec"``, ``"btad"`` and ``"dagm"`` have published constants per category; all
        else has those of a texture, which ask nothing of the image. In a config None stands for
        the data set at hand.
      category: a category of that data set; likewise.
      **options: fields of ``Settings``, and of ``Constants`` to replace published ones.

    Raises:
      UserError: unknown category or option, or a value out of range.
    """
    names = {field.name for field in fields(Constants)}
    given = {name: value for name, value in options.items() if name in names}
    own = override(constants(dataset, category), given)
    settings = override(Settings(), {k: v for k, v in options.items() if k not in names})
    check_choice("synthesis.blend", settings.blend, BLENDS)
    check_choice("synthesis.label", settings.label, labels.LABELS)
    check_order(own, "rows", "columns", "factors")
    return Nsa(own, settings)


@dataclass(frozen=True)
class Nsa:
    """The synthesiser: blends patches of one image into another.

    As published, all of a rectangle is blended while the label ends with the objects.
    """

    constants: Constants
    settings: Settings

    def __call__(
        self, target: np.ndarray, source: np.ndarray, rng: np.random.Generator
    ) -> Synthetic:
        """Blends.

        Args:
          target: (H, W, 3) uint8, a normal image.
          source: another one of the same category; of another size, it is scaled to the target's.
          rng: source of all randomness.

        Returns:
          The image and its label; ``changed`` is false if no attempt left a visible trace, be it
          that no patch met the constraints or that the images are alike.

        Raises:
          UserError: an image is not (H, W, 3) uint8.
        """
        settings, scale = self.settings, self.settings.filter_scale
        source = as_large(target, source)
        background, kernel = self.constants.background, odd(7, scale)
        masks = [patches.object_mask(i, background, kernel) for i in (source, target)]
        for _ in range(1 + settings.retries):
            change = self._attempt(target, source, masks, rng)
            mask = labels.binary(change, settings.tolerance, scale)
            if mask.any():
                logistic = self.constants.logistic
                label = labels.label(settings.label, change, mask, logistic, scale)
                return Synthetic(change.after, label, "nsa", True)
        return unchanged(target, "nsa")

    def _attempt(
        self,
        target: np.ndarray,
        source: np.ndarray,
        masks: list[np.ndarray],
        rng: np.random.Generator,
    ) -> Change:
        """Blends one patch, and each further one with probability 1/2."""
        image, area = target, np.zeros(target.shape[:2], np.uint8)
        mode = self.settings.blend
        if mode == "by_class":
            mode = "mixed" if self.constants.texture else "normal"
        elif mode == "either":
            mode = "mixed" if rng.random() < 0.5 else "normal"
        factor = rng.uniform(0.05, 0.95)
        for number in range(self.constants.max_patches):
            if number and rng.random() < 0.5:
                continue
            found = self._find(source, masks, rng)
            if found is None:
                continue
            patch, corner = found
            blended = self._blend(patch.pixels, image, *corner, mode, factor)
            if blended is not None:
                image, sides = blended, zip(corner, patch.object.shape, strict=True)
                place = tuple(slice(start, start + side) for start, side in sides)
                area[place] = patch.object | masks[1][place]
        return Change(target, image, area, factor if mode == "interpolate" else 1.0)

    def _find(
        self, source: np.ndarray, masks: list[np.ndarray], rng: np.random.Generator
    ) -> tuple[Patch, tuple[int, int]] | None:
        """A patch and the corner of its place."""
        own, settings = self.constants, self.settings
        patch = patches.cut(source, masks[0], own, settings.gamma, settings.draws, rng)
        if patch is None:
            return None
        if settings.resize:
            patch = patches.scaled(patch, source.shape, own, rng)
        if not settings.shift:
            return patch, patches.same_place(patch, source.shape)
        corner = patches.place(patch, masks[1], own, settings.draws, rng)
        return None if corner is None else (patch, corner)

    def _blend(
        self, patch: np.ndarray, image: np.ndarray, top: int, left: int, mode: str, factor: float
    ) -> np.ndarray | None:
        """The image with the patch in it, or None if the patch is too small."""
        height, width = patch.shape[0] - 2, patch.shape[1] - 2  # the outermost frame is not used
        least = _LEAST_PIXELS * self.settings.filter_scale**2
        if min(height, width) < 1 or height * width < least:
            return None
        if mode in ("normal", "mixed"):
            mixed, shifted = mode == "mixed", self.settings.legacy
            return seamless_clone(patch, image, top, left, mixed=mixed, legacy_shift=shifted)
        share = factor if mode == "interpolate" else 1.0
        inner, result = patch[1:-1, 1:-1], image.copy()
        place = result[top + 1 : top + 1 + height, left + 1 : left + 1 + width]
        place[...] = cv2.addWeighted(inner, share, place, 1 - share, 0)
        return result
