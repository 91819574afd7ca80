"""What every kind of synthetic anomaly takes and returns, and how its input is checked.

A synthesiser is a function ``(target, source, rng) -> Synthetic``. It changes ``target`` with
material from ``source``, another normal image of the same kind, and draws everything from
``rng``. Give each record a generator of its own, such as
``np.random.default_rng([seed, epoch, index])``: then a record looks the same whatever the number
of workers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

import cv2
import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.lookup import check_arguments, nearest
from flowad_jax.schema import within

Share = Annotated[float, within(0, 1)]
Jitter = Annotated[float, within(0, 0.5)]
Count = Annotated[int, within(0, 10**6)]
_T = TypeVar("_T")


class Synthetic(NamedTuple):
    """An image with a synthetic anomaly.

    Attributes:
      image: (H, W, 3) uint8.
      mask: (H, W) float32 in [0, 1], how anomalous a pixel is. Where it is zero the image is that
        of the target; NSA alone also changes what its tolerance and its object masks leave out.
      kind: what was done, e.g. ``"nsa"`` or ``"circle"``.
      changed: whether there is an anomaly. If not, the image is the target and the mask is zero.
    """

    image: np.ndarray
    mask: np.ndarray
    kind: str
    changed: bool


Synthesiser = Callable[[np.ndarray, np.ndarray, np.random.Generator], Synthetic]


def source_scale(synthesise: Synthesiser) -> float:
    """The side of the source that a synthesiser wants, in sides of the target.

    It is the attribute of that name, 1 where there is none. A source of another size is scaled to
    it, but one that was scaled to the target before has lost its detail.
    """
    return getattr(synthesise, "source_scale", 1.0)


def unchanged(target: np.ndarray, kind: str) -> Synthetic:
    """The target as it is, with an empty mask."""
    return Synthetic(target.copy(), np.zeros(target.shape[:2], np.float32), kind, False)


def draw_source(index: int, count: int, rng: np.random.Generator) -> int:
    """Draws which record lends material to record ``index``: any other one, all as likely.

    A set of one image can only lend to itself.

    Raises:
      UserError: there is no record ``index`` in a set of ``count``.
    """
    if not 0 <= index < count:
        raise UserError(f"record {index} is not in a set of {count}: use 0 to {count - 1}")
    if count == 1:
        return index
    other = int(rng.integers(count - 1))
    return other + (other >= index)


def check_images(target: np.ndarray, source: np.ndarray) -> None:
    """Raises a UserError if an image is not (H, W, 3) uint8."""
    for name, image in (("target", target), ("source", source)):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            found = getattr(image, "dtype", type(image).__name__)
            raise UserError(f"the {name} image is {found}: give RGB pixels as uint8, 0 to 255")
        if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            fix = "repeat grey three times, drop alpha"
            raise UserError(f"the {name} image has shape {image.shape}, not (H, W, 3): {fix}")


def as_large(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Returns the source at the size of the target.

    Raises:
      UserError: one of them is not (H, W, 3) uint8.
    """
    check_images(target, source)
    height, width = target.shape[:2]
    if source.shape == target.shape:
        return source
    shrinks = source.shape[0] > height and source.shape[1] > width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(source, (width, height), interpolation=method)


def random_integer(rng: np.random.Generator, low: int, high: int) -> int:
    """Uniform in [low, high), or ``low`` where that range is empty."""
    return int(rng.integers(low, max(high, low + 1)))


def override(settings: _T, options: Mapping[str, Any]) -> _T:
    """Returns a dataclass with some fields replaced by options of a config.

    Raises:
      UserError: an option is unknown, of another type than the field or out of its bounds.
    """
    fields = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    for name in options:
        if name not in fields:
            raise UserError(f"synthesis has no option '{name}': {nearest(name, fields)}")
    check_arguments("synthesis", type(settings), options)
    return dataclasses.replace(settings, **options)  # type: ignore[type-var]


def check_order(settings: Any, *names: str) -> None:
    """Raises a UserError if one of the bounds (low, high) has its larger number first."""
    for name in names:
        low, high = getattr(settings, name)
        if low > high:
            raise UserError(f"synthesis.{name}=({low}, {high}): give the smaller number first")
