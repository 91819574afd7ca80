"""Values of a config that no part of a run would refuse in words of its own."""

from __future__ import annotations

from ml_collections import config_dict

from flowad_jax.errors import UserError
from flowad_jax.evaluation import conformal, native
from flowad_jax.features import memory as free
from flowad_jax.training import config_schema
from flowad_jax.types import Method


def values(config: config_dict.ConfigDict) -> None:
    """Raises a `UserError` that names the first key which is unknown, missing or out of range."""
    config_schema.check(config)
    conformal.check_rate(config.eval.false_alarm_rate)
    native.check_mask_size(config.eval.mask_size)


def memory(config: config_dict.ConfigDict, side: int) -> None:
    """Raises a `UserError` if not even the pixels of one batch have room in memory."""
    count = config.eval.batch_size
    needed, there = 12 * count * side**2, free.host()  # three float32 per pixel
    if needed > there:
        raise UserError(
            f"eval.batch_size={count}: so many images of {side} px take {free.text(needed)}, but "
            f"{free.text(there)} of memory are free; set it or data.image_size lower"
        )


def scoring(config: config_dict.ConfigDict, method: Method) -> None:
    """Raises a `UserError` if the method knows no such form of scoring."""
    wanted, known = config.eval.scoring, ("calibrated", method.published)
    if wanted not in known:
        raise UserError(
            f"eval.scoring='{wanted}': method {config.method.name} has {' and '.join(known)}"
        )
