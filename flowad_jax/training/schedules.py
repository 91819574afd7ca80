"""Learning rates as closed-form functions of the image batch, so that a resumed run is exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flowad_jax.errors import UserError

Schedule = Callable[[jax.Array], jax.Array]  # image batches seen -> learning rate

EXPORTS = ("cflow", "constant", "linear", "msflow", "ssnf")


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
    """
    meta_epochs = math.ceil(epochs / sub_epochs)
    length = steps_per_epoch * sub_epochs
    lowest = learning_rate * decay_rate**3

    def cosine(meta_epoch: Any) -> jax.Array:
        fall = 1 + jnp.cos(jnp.pi * meta_epoch / meta_epochs)
        return lowest + (learning_rate - lowest) * fall / 2

    def schedule(step: jax.Array) -> jax.Array:
        rate = cosine(step // length)
        if not warmup_meta_epochs:
            return rate
        start, end = learning_rate / 10, cosine(warmup_meta_epochs)
        progress = step / (warmup_meta_epochs * length)
        return jnp.where(progress < 1, start + progress * (end - start), rate)

    return schedule


def msflow(
    learning_rate: float,
    epochs: int,
    steps_per_epoch: int,
    sub_epochs: int = 4,
    warmup_meta_epochs: int = 3,
    warmup_start: float = 0.1,
    milestones: tuple[float, ...] = (0.7, 0.9),
    gamma: float = 0.33,
) -> Schedule:
    """Linear warm-up, then steps down at milestones, by epoch (MSFlow, released code).

    The reference shifts its milestones wrongly when it resumes; this is the schedule of a run
    without interruption.

    Args:
      learning_rate: value between the warm-up and the first milestone.
      epochs: passes over the images in the whole run (the reference's sub-epochs).
      steps_per_epoch: image batches per pass.
      sub_epochs: epochs per meta epoch.
      warmup_meta_epochs: length of the warm-up; 0 for none.
      warmup_start: share of the learning rate with which the warm-up begins.
      milestones: shares of ``epochs`` after which the rate falls.
      gamma: factor by which it falls.
    """
    warmup = warmup_meta_epochs * sub_epochs
    falls = jnp.array([round(share * epochs) for share in milestones])

    def schedule(step: jax.Array) -> jax.Array:
        epoch = step // steps_per_epoch
        progress = jnp.minimum(epoch / warmup, 1.0) if warmup else 1.0
        passed = jnp.sum(jnp.expand_dims(epoch, -1) >= falls, axis=-1)
        return learning_rate * (warmup_start + (1 - warmup_start) * progress) * gamma**passed

    return schedule


def ssnf(
    learning_rate: float,
    epochs: int,
    steps_per_epoch: int,
    t_max: int | None = 100,
    eta_min: float = 1e-6,
) -> Schedule:
    """Cosine by epoch that falls for ``t_max`` epochs and climbs back for as many (SSNF, released).

    The released run of 500 epochs thus has its highest rate again in epochs 200 and 400.

    Args:
      learning_rate: highest value, that of the first epoch.
      epochs: passes over the images in the whole run.
      steps_per_epoch: image batches per pass.
      t_max: epochs from the highest to the lowest rate; None for one fall over the whole run.
      eta_min: lowest value.

    Raises:
      UserError: ``t_max`` is negative.
    """
    if t_max is not None and t_max < 0:
        raise UserError(f"train.schedule.t_max={t_max}: epochs of a fall, or None for the run")
    fall = t_max or epochs

    def schedule(step: jax.Array) -> jax.Array:
        angle = jnp.pi * (step // steps_per_epoch % (2 * fall)) / fall
        return eta_min + (learning_rate - eta_min) * (1 + jnp.cos(angle)) / 2

    return schedule


def constant(learning_rate: float, epochs: int, steps_per_epoch: int) -> Schedule:
    """The same learning rate throughout."""
    del epochs, steps_per_epoch
    return lambda step: jnp.full(jnp.shape(step), learning_rate)


def linear(
    learning_rate: float,
    epochs: int,
    steps_per_epoch: int,
    end: float = 0.4,
    steps: int | None = 25_000,
) -> Schedule:
    """Falls evenly from batch to batch to a share of the learning rate, and stays there (U-Flow).

    Args:
      learning_rate: of the first batch.
      epochs: passes over the images in the whole run.
      steps_per_epoch: image batches per pass.
      end: share of the learning rate that remains.
      steps: image batches until then; None for those of the whole run.

    Raises:
      UserError: ``end`` is no share or ``steps`` is negative.
    """
    if not 0 <= end <= 1:
        raise UserError(f"train.schedule.end={end}: a share lies in 0 ... 1")
    if steps is not None and steps < 1:
        raise UserError(f"train.schedule.steps={steps}: batches of the fall, or None for the run")
    fall = steps or epochs * steps_per_epoch
    return lambda step: learning_rate * (1 - (1 - end) * jnp.minimum(step / fall, 1.0))
