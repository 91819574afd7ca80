"""From the section `synthesis` of a config to what makes a method's training anomalies."""

from __future__ import annotations

from typing import Any

from ml_collections import config_dict

from flowad_jax.data import sources
from flowad_jax.data.augment import Synthesis, lender_files
from flowad_jax.errors import UserError
from flowad_jax.synthesis import make
from flowad_jax.types import Method


def find(config: config_dict.ConfigDict, method: Method) -> Synthesis | None:
    """Returns what changes training images, or None if nothing shall.

    Raises:
      UserError: the method learns from normal images alone, or an option does not work.
    """
    options = config.synthesis.to_dict()
    name, threshold, lenders = (options.pop(k) for k in ("name", "mask_threshold", "lenders"))
    if not name:
        return None
    if method.learns_from == "normal":
        raise UserError(
            f"synthesis.name='{name}': method {config.method.name} learns from normal images "
            "alone: set synthesis.name to ''"
        )
    return Synthesis(
        make=make(name, **_of_category(options, config.data)),
        arrangement=method.learns_from,
        mask_threshold=threshold,
        lenders=tuple(lender_files(lenders)) if lenders else (),
    )


def _of_category(options: dict[str, Any], data: config_dict.ConfigDict) -> dict[str, Any]:
    """Leaves out what is not set, and lets a category find its own constants."""
    given = {key: value for key, value in options.items() if value is not None}
    if given.get("dataset") == "":
        given |= {"dataset": sources.plain(data.name), "category": data.category}
    return given
