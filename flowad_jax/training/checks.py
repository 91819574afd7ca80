"""Values of a config that no part of a run would refuse in words of its own."""

from __future__ import annotations

from ml_collections import config_dict

from flowad_jax.errors import UserError
from flowad_jax.evaluation import conformal, native
from flowad_jax.types import Method


def numbers(config: config_dict.ConfigDict) -> None:
    """Raises a `UserError` that names the first number which is out of range."""
    for key in (
        "data.image_size",
        "train.epochs",
        "train.batch_size",
        "train.learning_rate",
        "train.eval_every",
        "train.checkpoint_every",
        "eval.batch_size",
        "eval.calibration_images",
    ):
        section, name = key.split(".")
        if config[section][name] <= 0:
            raise UserError(f"{key}={config[section][name]}: must be greater than 0")
    conformal.check_rate(config.eval.false_alarm_rate)
    native.check_mask_size(config.eval.mask_size)
    if config.train.clip_norm < 0:
        raise UserError(f"train.clip_norm={config.train.clip_norm}: must be 0 (no bound) or more")
    for category, size in config.data.category_sizes.items():
        if not isinstance(size, int) or size <= 0:
            key = f"data.category_sizes.{category}"
            raise UserError(f"{key}={size}: must be a whole number of pixels greater than 0")


def scoring(config: config_dict.ConfigDict, method: Method) -> None:
    """Raises a `UserError` if the method knows no such form of scoring."""
    wanted, known = config.eval.scoring, ("calibrated", method.published)
    if wanted not in known:
        raise UserError(
            f"eval.scoring='{wanted}': method {config.method.name} has {' and '.join(known)}"
        )
