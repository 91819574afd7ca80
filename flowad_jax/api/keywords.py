"""Keys of a config as keyword arguments of Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from flowad_jax import lookup
from flowad_jax.detector.config_schema import flatten
from flowad_jax.errors import UserError
from flowad_jax.settings import sections


def assign(config: config_dict.ConfigDict, values: Mapping[str, Any]) -> None:
    """Sets keys of a config, in place.

    Args:
      config: a complete config.
      values: by key: ``"train.epochs"``, ``"train__epochs"``, or ``"epochs"``, its last word, where
        no other key ends with that. What is named brings its own options, as on a command line.

    Raises:
      UserError: there is no such key, several end like that, or the value is of another type.
    """
    names = {call.name: section for section, call in sections.CALLS.items()}
    for word, value in values.items():
        if (key := word.replace("__", ".")) in names:
            sections.choose(config, names[key], str(value))
    for word in values:
        key, value = _find(config, word), values[word]
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            now = config.to_dict()
            kind = type(flatten(now)[key]).__name__
            raise UserError(f"{word}={value!r}: {key} takes {kind}") from error


def _find(config: config_dict.ConfigDict, word: str) -> str:
    keys, wanted = list(flatten(config.to_dict())), word.replace("__", ".")
    if wanted in keys:
        return wanted
    ends = [key for key in keys if key.rpartition(".")[2] == wanted]
    if len(ends) > 1:
        choices = " or ".join(key.replace(".", "__") for key in ends)
        raise UserError(f"{word}= could be several settings: write {choices}")
    if not ends:
        spelled = {key.replace(".", "__") for key in keys} | {k.rpartition(".")[2] for k in keys}
        raise UserError(f"there is no setting {word}=: {lookup.nearest(word, spelled)}")
    return ends[0]
