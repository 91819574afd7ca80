"""From the section `synthesis` of a config to what makes a method's training anomalies."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from ml_collections import config_dict

from flowad_jax.data import sources
from flowad_jax.data.augment import Synthesis, find_source_files
from flowad_jax.errors import UserError
from flowad_jax.synthesis import CATEGORY_CONSTANTS, Constants, constants, make
from flowad_jax.types import Method

log = logging.getLogger("flowad_jax")


def find(config: config_dict.ConfigDict, method: Method) -> Synthesis | None:
    """Returns the configured synthesis, or None.

    Raises:
      UserError: the method learns from normal images alone, or an option does not work.
    """
    options = config.synthesis.to_dict()
    name, threshold, folder = (options.pop(k) for k in ("name", "mask_threshold", "lenders"))
    negative = options.pop("unchanged_as_negative", False)  # 0.1 did not know it
    if not name:
        return None
    if method.batch_kind == "normal":
        raise UserError(
            f"synthesis.name='{name}': method {config.method.name} learns from normal images "
            "alone: set synthesis.name to None"
        )
    given = {key: value for key, value in options.items() if value is not None}
    if options.get("dataset", "") is None:  # the category finds its own constants
        given |= {"dataset": sources.plain(config.data.name), "category": config.data.category}
    synthesiser = make(name, **given)
    if given.get("dataset") in CATEGORY_CONSTANTS:
        log.info("%s: %s", name, _described(given))
    return Synthesis(
        make=synthesiser,
        arrangement=method.batch_kind,
        mask_threshold=threshold,
        source_files=tuple(find_source_files(folder)) if folder else (),
        unchanged_as_negative=negative,
    )


def _described(given: dict[str, Any]) -> str:
    """Names the constants of a category that differ from those of most textures."""
    usual = dataclasses.asdict(Constants())
    own = dataclasses.asdict(constants(given["dataset"], given["category"])) | given
    changed = [f"{name} {_short(own[name])}" for name in usual if own[name] != usual[name]]
    place = f"constants of {given['dataset']}/{given['category']}"
    return f"{place}: {', '.join(changed) or 'those of most textures'}"


def _short(value: Any) -> str:
    """A constant as it could be set in a config, with numbers to three digits."""
    if isinstance(value, tuple | list):
        inner = ", ".join(map(_short, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
