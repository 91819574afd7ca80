"""What lies beside an image on its canvas has no part in its scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Shaped

from flowad_jax.canvas import Canvas


def hide_padding(
    log_probs: Sequence[Float[np.ndarray, "N h w"]],
    canvas: Canvas,
    shapes: Sequence[Sequence[int]],
) -> tuple[Float[np.ndarray, "N h w"], ...]:
    """Makes positions that show nothing but padding as likely as the likeliest of their image.

    So they raise no score, and change no constant that is fitted to normal images.

    Args:
      log_probs: of L scales.
      canvas: on which the images lie.
      shapes: (H, W) of the N images.
    """
    return tuple(
        values if canvas.fit != "pad" else np.stack([*_hidden(values, canvas, shapes)])
        for values in log_probs
    )


def _hidden(
    values: Float[np.ndarray, "N h w"], canvas: Canvas, shapes: Sequence[Sequence[int]]
) -> Iterator[Float[np.ndarray, "h w"]]:
    for one, shape in zip(values, shapes, strict=True):
        place = canvas.place(shape)
        rows = _touched(place.top, place.height, canvas.height, one.shape[0])
        columns = _touched(place.left, place.width, canvas.width, one.shape[1])
        inside = one[rows, columns]
        hidden = np.full_like(one, inside.max())
        hidden[rows, columns] = inside
        yield hidden


def _touched(start: int, length: int, side: int, count: int) -> slice:
    """Which of the positions along a side of the canvas see a part of the image."""
    return slice(start * count // side, -(-(start + length) * count // side))


def unpadded(
    values: Shaped[np.ndarray, "N H W"] | None, canvas: Canvas, shapes: Sequence[Sequence[int]]
) -> list[Shaped[np.ndarray, "h w"]] | None:
    """Returns the part of every map or mask of a canvas that shows the image; None of None."""
    if values is None:
        return None
    places = map(canvas.place, shapes)
    return [one[p.rows, p.columns] for one, p in zip(values, places, strict=True)]
