"""The rectangle of pixels that images are brought to, and how an image comes to lie on it.

Sizes are (height, width) in pixels throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from flowad_jax.lookup import check_choice

FITS = ("stretch", "crop", "pad")


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """Of an array (H, W, ...), those inside."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """The same for columns."""
        return slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Canvas:
    """What the encoder sees of every image has this size.

    Attributes:
      height, width: in pixels.
      fit: ``"stretch"`` scales both sides of an image, each by its own factor. ``"crop"`` takes the
        largest part of the canvas' aspect from the middle, ``"pad"`` scales the whole image by one
        factor, puts it into the middle and mirrors it at its borders.
    """

    height: int
    width: int
    fit: str = "stretch"

    def __post_init__(self) -> None:
        check_choice("data.fit", self.fit, FITS)

    @classmethod
    def of(cls, size: CanvasLike, fit: str = "stretch") -> Canvas:
        """Returns the canvas of a size: one number for a square, or (height, width)."""
        if isinstance(size, Canvas):
            return size
        height, width = (size, size) if isinstance(size, int) else size
        return cls(height, width, fit)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def size(self) -> int | list[int]:
        """The same as files have it: one number for a square."""
        return self.height if self.height == self.width else [self.height, self.width]

    def __str__(self) -> str:
        """The size in words: ``"256"`` or ``"256 x 640"``."""
        return str(self.height) if self.height == self.width else f"{self.height} x {self.width}"

    def scaled(self, factor: float) -> Canvas:
        """A canvas whose sides are so many times as long."""
        return Canvas(int(factor * self.height), int(factor * self.width), self.fit)

    def seen(self, size: Sequence[int]) -> Box:
        """The part of an image (H, W) that the encoder sees; all of it unless that is cropped."""
        height, width = size
        if self.fit != "crop":
            return Box(0, 0, height, width)
        return _middle((height, width), self.shape)

    def place(self, size: Sequence[int]) -> Box:
        """Where that lies on the canvas; everywhere unless it is padded."""
        if self.fit != "pad":
            return Box(0, 0, self.height, self.width)
        return _middle(self.shape, size)


CanvasLike: TypeAlias = int | Sequence[int] | Canvas


def _middle(size: Sequence[int], aspect: Sequence[int]) -> Box:
    """The largest box of an aspect (height, width) in the middle of a size (H, W)."""
    (height, width), (tall, wide) = size, aspect
    if width * tall > height * wide:
        width = max(1, round(height * wide / tall))
    else:
        height = max(1, round(width * tall / wide))
    return Box((size[0] - height) // 2, (size[1] - width) // 2, height, width)
