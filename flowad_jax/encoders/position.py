"""Learned position codes of transformers, also for images of another size."""

import jax
import jax.numpy as jnp

from flowad_jax.errors import UserError

EXPORTS = ()  # nothing in here is the name of an encoder


def resized(code: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Interpolates codes (1, n * n, C) of a square of patches to a grid of h x w: (1, h * w, C).

    Bicubic with the kernel of Keys (a = -0.5), antialiased and with the corners of pixels
    aligned, as in timm; the square itself stays what it is.
    """
    side = round(code.shape[1] ** 0.5)
    if grid == (side, side):
        return code
    square = code.reshape(1, side, side, -1)
    wide = jax.image.resize(square, (1, *grid, code.shape[-1]), "cubic", antialias=True)
    return jnp.asarray(wide.reshape(1, grid[0] * grid[1], -1))


def check_multiple(size: tuple[int, ...], patch: int) -> None:
    """Raises a `UserError` for an image that does not consist of whole patches."""
    if any(side % patch for side in size):
        near = " x ".join(str(max(1, round(side / patch)) * patch) for side in size)
        raise UserError(
            f"image of {size[0]} x {size[1]} px: this encoder sees patches of {patch} px; the next "
            f"size of whole patches is {near}, see data.image_size"
        )
