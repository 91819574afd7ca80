"""NSA's constants for the categories of three data sets, as published.

MVTec AD: Schlüter et al., "Natural Synthetic Anomalies" (ECCV 2022). BTAD and DAGM: SSNF.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from flowad_jax.lookup import check_choice
from flowad_jax.schema import within
from flowad_jax.synthesis.types import Share

Pair = tuple[float, float]
_Half = Annotated[float, within(0, 0.5)]
_Factor = Annotated[float, within(0, 100)]


@dataclass(frozen=True)
class Constants:
    """How anomalies of one category are sampled.

    Attributes:
      texture: whether the category is a texture; decides what ``blend="by_class"`` means.
      background: pairs (brightness b, tolerance t); a pixel belongs to the object where its mean
        of RGB is further than t from every b. Empty: no masks, no constraints.
      rows, columns: bounds of a patch's half-height and half-width as shares of the image sides;
        as published, a resized patch is held to the same numbers with its full sides.
      factors: bounds of the factor by which a patch is scaled.
      min_object: share of a patch that must be object.
      min_overlap: share of a patch's object that must land on the object.
      max_patches: most patches in one image.
      logistic: slope and midpoint, in grey levels, of the logistic-intensity label.
    """

    texture: bool = True
    background: tuple[Pair, ...] = ()
    rows: tuple[_Half, _Half] = (0.03, 0.40)
    columns: tuple[_Half, _Half] = (0.03, 0.40)
    factors: tuple[_Factor, _Factor] = (0.5, 2.0)
    min_object: Share = 0.0
    min_overlap: Share = 0.0
    max_patches: Annotated[int, within(1, 100)] = 4
    logistic: Pair = (1 / 3, 7)


_FREE = Constants(texture=False, factors=(0.7, 1.3), max_patches=3, logistic=(1 / 12, 24))
_OBJECT = replace(_FREE, min_object=0.70, min_overlap=0.25)
_ON_WHITE = replace(_OBJECT, background=((200, 60),))
_ON_BLACK = replace(_OBJECT, background=((20, 20),))

DEFAULT = Constants()  # the row of most textures; it asks nothing of the image
CATEGORY_CONSTANTS: dict[str, dict[str, Constants]] = {
    "mvtec": {
        **dict.fromkeys(("carpet", "grid", "leather", "tile"), DEFAULT),
        "wood": replace(DEFAULT, logistic=(1 / 6, 15)),
        "bottle": _ON_WHITE,
        "cable": replace(_FREE, rows=(0.05, 0.40), columns=(0.05, 0.40)),
        "capsule": replace(_ON_WHITE, rows=(0.03, 0.15), logistic=(1 / 2, 4)),
        "hazelnut": replace(_ON_BLACK, rows=(0.03, 0.35), columns=(0.03, 0.35)),
        "metal_nut": replace(_ON_BLACK, min_object=0.50, logistic=(1 / 3, 7)),
        "pill": replace(_ON_BLACK, rows=(0.03, 0.20), logistic=(1 / 3, 7)),
        "screw": replace(
            _ON_WHITE,
            rows=(0.03, 0.12),
            columns=(0.03, 0.12),
            min_object=0.50,
            max_patches=4,
            logistic=(1, 3),
        ),
        "toothbrush": replace(
            _ON_BLACK, columns=(0.03, 0.20), min_object=0.25, logistic=(1 / 6, 15)
        ),
        "transistor": replace(_FREE, logistic=(1 / 6, 15)),
        "zipper": replace(_ON_WHITE, columns=(0.03, 0.20), max_patches=4, logistic=(1 / 6, 15)),
    },
    "btad": {"01": _ON_WHITE, "02": DEFAULT, "03": _ON_WHITE},
    "dagm": {f"Class{number}": DEFAULT for number in range(1, 11)},
}


def constants(dataset: str | None = None, category: str | None = None) -> Constants:
    """Looks up a category.

    Args:
      dataset: ``"mvtec"``, ``"btad"`` or ``"dagm"``; any other name has the default constants.
      category: a category of that data set.

    Raises:
      UserError: one of the three data sets has no such category.
    """
    if dataset not in CATEGORY_CONSTANTS:
        return DEFAULT
    check_choice(f"{dataset}: synthesis.category", category or "", CATEGORY_CONSTANTS[dataset])
    return CATEGORY_CONSTANTS[dataset][category or ""]
