"""What every kind of synthetic anomaly takes and returns, and how its input is checked.

A synthesiser is a function ``(target, source, rng) -> Synthetic``. It changes ``target`` with
material from ``source``, another normal image of the same kind, and draws everything from
``rng``. Give each record a generator of its own, such as
``np.random.default_rng([seed, epoch, index])``: then a record looks the same whatever the number
of workers.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.lookup import nearest

_T = TypeVar("_T")
_ANY_TUPLE = "a tuple"


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


def lender_scale(synthesise: Synthesiser) -> float:
    """The side of the source that a synthesiser wants, in sides of the target.

    It is the attribute of that name, 1 where there is none. A source of another size is scaled to
    it, but one that was scaled to the target before has lost its detail.
    """
    return getattr(synthesise, "lender_scale", 1.0)


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


def check_pair(target: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both images; a source of another size is scaled to that of the target.

    Raises:
      UserError: one of them is not (H, W, 3) uint8.
    """
    check_images(target, source)
    height, width = target.shape[:2]
    if source.shape != target.shape:
        shrinks = source.shape[0] > height and source.shape[1] > width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        source = cv2.resize(source, (width, height), interpolation=method)
    return target, source


def check_images(target: np.ndarray, source: np.ndarray) -> None:
    """Raises a UserError if an image is not (H, W, 3) uint8."""
    for name, image in (("target", target), ("source", source)):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            found = getattr(image, "dtype", type(image).__name__)
            raise UserError(f"the {name} image is {found}: give RGB pixels as uint8, 0 to 255")
        if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            fix = "repeat grey three times, drop alpha"
            raise UserError(f"the {name} image has shape {image.shape}, not (H, W, 3): {fix}")


def integer(rng: np.random.Generator, low: int, high: int) -> int:
    """Uniform in [low, high), or ``low`` where that range is empty."""
    return int(rng.integers(low, max(high, low + 1)))


def overridden(settings: _T, options: Mapping[str, Any]) -> _T:
    """Returns a dataclass with some fields replaced by options of a config.

    Raises:
      UserError: an option is unknown or of another type than the field.
    """
    fields = {field.name: field for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    for name, value in values.items():
        check_choice("option", name, fields)
        wanted = _family(getattr(settings, name))
        if value is None and "None" in str(fields[name].type):
            continue
        if _family(value) != wanted and not (wanted == _ANY_TUPLE and isinstance(value, tuple)):
            raise UserError(f"synthesis option {name}={value!r} does not fit: give {wanted}")
    return dataclasses.replace(settings, **values)  # type: ignore[type-var]


def _family(value: Any) -> str:
    """What a setting is, in words."""
    if isinstance(value, tuple):
        plain = value and all(_family(item) == "a number" for item in value)
        return f"({', '.join('number' for _ in value)})" if plain else _ANY_TUPLE
    families = {bool: "True or False", str: "a word", numbers.Real: "a number"}
    return next((words for kind, words in families.items() if isinstance(value, kind)), "")


def check_choice(what: str, value: str, choices: Collection[str]) -> None:
    """Raises a UserError if a word is none of the choices."""
    if value not in choices:
        raise UserError(f"synthesis {what} {value!r} is unknown: {nearest(str(value), choices)}")


def check_range(what: str, value: float, low: float, high: float) -> None:
    """Raises a UserError if a number is out of range."""
    if not low <= value <= high:
        raise UserError(f"synthesis option {what}={value} is out of range: use {low} to {high}")
