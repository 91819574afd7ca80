"""Whether a backend says the same as JAX: scores, maps, p-values, decisions and regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.bundle.reference import Reference
from flowad_jax.errors import UserError, printable
from flowad_jax.evaluation.conformal import TIE

LIMITS = {"score": TIE, "map": 1e-4}
_STAGE = 1e-5  # relative difference that is worth a word; rounding stays below it


class Scales(NamedTuple):
    """What differences are measured by.

    Attributes:
      score: largest magnitude among the scores of held-out normal images, which `TIE` refers to.
      map: largest value of their maps.
    """

    score: float
    map: float

    @classmethod
    def of(cls, card: Mapping[str, Any], reference: Reference) -> Scales:
        """Those of a detector; if it held no images out, those of what it was checked with."""
        normal = [x for fold in card["calibration"]["image"] for x in fold]
        peaks = [x for fold in card["calibration"]["peak"] for x in fold]
        score = np.max(np.abs(normal or reference.score), initial=0.0, where=True)
        largest = np.max(np.abs(peaks or reference.map), initial=0.0)
        return cls(float(score) or 1.0, float(largest) or 1.0)


@dataclass
class Agreement:
    """How far a backend is from JAX at most.

    Attributes:
      backend, version: which it is.
      images: that were compared.
      exact: whether scores and maps may only differ by `LIMITS`; if not, they are measured.
      score: largest difference of scores, by `Scales.score`.
      map: largest difference of maps, by the largest value of the map or `Scales.map`.
    """

    backend: str
    version: str
    images: int = 0
    score: float = 0.0
    map: float = 0.0
    exact: bool = True

    def record(self) -> dict[str, Any]:
        """The same as JSON values: limits that were kept, or differences with two digits.

        What rounding alone leaves is not the same twice on every machine, and bundles are.
        """
        values = asdict(self)
        if values.pop("exact"):
            return values | LIMITS
        return values | {name: float(f"{getattr(self, name):.1e}") for name in LIMITS}

    def add(self, image: str, expected: Any, found: Any, scales: Scales) -> None:
        """Compares ``score`` and ``map`` of an image.

        Raises:
          Mismatch: they differ by more than `LIMITS`.
        """
        largest = max(float(np.max(np.abs(expected.map), initial=0.0)), scales.map)
        for figure, scale in (("score", scales.score), ("map", largest)):
            one, other = np.asarray(getattr(expected, figure)), np.asarray(getattr(found, figure))
            if one.shape != other.shape:
                raise Mismatch(self.backend, image, f"its {figure} has shape {other.shape}")
            difference = _difference(one, other) / scale
            limit = LIMITS[figure] if self.exact else np.inf
            if not difference <= limit:
                far = f"its {figure} differs by {difference:.2g} (at most {limit:g})"
                raise Mismatch(self.backend, image, far)
            setattr(self, figure, max(getattr(self, figure), difference))
        self.images += 1


class Mismatch(UserError):
    """A backend says something else than JAX.

    Attributes:
      backend, image: which.
    """

    def __init__(self, backend: str, image: str, what: str):
        """``what`` completes "BACKEND differs from JAX on IMAGE:"."""
        super().__init__(f"{backend} does not agree with JAX on '{printable(image)}': {what}")
        self.backend, self.image = backend, image


class Canvas(NamedTuple):
    """Score by every part, and map, of one image on the canvas."""

    score: np.ndarray
    map: np.ndarray


def compare_canvas(
    agreement: Agreement,
    names: Sequence[str],
    expected: Reference,
    outputs: Sequence[np.ndarray],
    scales: Scales,
) -> None:
    """Compares what a graph returns for the images of a bundle.

    Raises:
      Mismatch: it is something else.
    """
    score, maps = outputs
    for name, *row in zip(names, expected.score, expected.map, score, maps, strict=True):
        agreement.add(name, Canvas(*row[:2]), Canvas(*row[2:]), scales)


def compare(
    agreement: Agreement, image: str, expected: Any, found: Any, scales: Scales, limit: float | None
) -> None:
    """Compares all that is said about an image; regions are those above ``limit``.

    Raises:
      Mismatch: it is something else.
    """
    agreement.add(image, expected, found, scales)
    for figure in ("anomalous", "p_value"):
        one, other = getattr(expected, figure), getattr(found, figure)
        if one != other:
            raise Mismatch(agreement.backend, image, f"{figure} is {other}, must be {one}")
    # A pixel on the very limit may fall on either side of it.
    same = limit is None or np.array_equal(expected.map > limit, found.map > limit)
    one, other = (sorted(tuple(r)[:5] for r in x.regions) for x in (expected, found))
    if same and one != other:
        raise Mismatch(agreement.backend, image, f"regions are {other}, must be {one}")


def first_difference(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> str | None:
    """Returns the name of the first stage that is not the same; None if all are."""
    for name, value in expected.items():
        scale = float(np.max(np.abs(value), initial=0.0)) or 1.0
        if not _difference(value, found[name]) / scale <= _STAGE:
            return name
    return None


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference; what is not a number on both sides is equal."""
    apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    both = np.isnan(one) & np.isnan(other) | (one == other)  # infinities, too
    return float(np.max(np.where(both, 0.0, apart), initial=0.0))
