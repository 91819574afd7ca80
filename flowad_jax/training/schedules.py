"""Learning rates as closed-form functions of the image batch, so that a resumed run is exact."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.Array], jax.Array]

EXPORTS = ("cflow", "constant")


def cflow(
    learning_rate: float,
    epochs: int,
    steps_per_epoch: int,
    sub_epochs: int = 8,
    warmup_meta_epochs: int = 2,
    decay_rate: float = 0.1,
) -> Schedule:
    """Cosine per meta epoch, with a linear warm-up per image batch (CFLOW-AD, released code).

    A meta epoch is ``sub_epochs`` passes over the images. The cosine falls from the learning rate
    to ``learning_rate * decay_rate**3`` and is constant within a meta epoch. The warm-up starts at
    a tenth of the learning rate and ends at what the cosine prescribes for its last meta epoch + 1.

    Args:
      learning_rate: peak of the cosine.
      epochs: passes over the images in the whole run.
      steps_per_epoch: image batches per pass.
      sub_epochs: passes per meta epoch.
      warmup_meta_epochs: length of the warm-up; 0 for none.
      decay_rate: see above.

    Returns:
      A function from the number of image batches seen to the learning rate.
    """
    meta_epochs = math.ceil(epochs / sub_epochs)
    length = steps_per_epoch * sub_epochs
    lowest = learning_rate * decay_rate**3

    def cosine(meta_epoch):
        return (
            lowest + (learning_rate - lowest) * (1 + jnp.cos(jnp.pi * meta_epoch / meta_epochs)) / 2
        )

    def schedule(step: jax.Array) -> jax.Array:
        rate = cosine(step // length)
        if not warmup_meta_epochs:
            return rate
        start, end = learning_rate / 10, cosine(warmup_meta_epochs)
        progress = step / (warmup_meta_epochs * length)
        return jnp.where(progress < 1, start + progress * (end - start), rate)

    return schedule


def constant(learning_rate: float, epochs: int, steps_per_epoch: int) -> Schedule:
    """The same learning rate throughout."""
    del epochs, steps_per_epoch
    return lambda step: jnp.full(jnp.shape(step), learning_rate)
