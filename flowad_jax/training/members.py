"""Which runs a config asks for: all combinations of its encoders, categories and seeds."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import config_dict

from flowad_jax import files
from flowad_jax.data import sources
from flowad_jax.errors import UserError
from flowad_jax.training.interrupt import Interrupted

ALL = "all"
ERROR = "error.txt"

log = logging.getLogger("flowad_jax")


class Member(NamedTuple):
    """One run.

    Attributes:
      folder: below the workdir of all.
      config: complete, and without a list of anything.
    """

    folder: str
    config: config_dict.ConfigDict

    @property
    def facts(self) -> dict[str, Any]:
        """What tells it from the others."""
        config = self.config
        names = {"category": config.data.category, "encoder": config.encoder.name}
        return {"folder": self.folder, **names, "seed": config.seed}


def wanted(config: config_dict.ConfigDict) -> bool:
    """Whether a config asks for more than one run."""
    several = config.data.category == ALL or "," in config.data.category
    return bool(several or config.sweep.seeds or config.sweep.encoders or config.train.stack)


def members(config: config_dict.ConfigDict) -> list[Member]:
    """Lists all runs; encoders change slowest, seeds fastest.

    Raises:
      UserError: the data set has no categories, or one is listed twice.
    """
    config = _unstacked(config)
    encoders = list(config.sweep.encoders) or [config.encoder.name]
    choices = (encoders, _categories(config), list(config.sweep.seeds) or [config.seed])
    for key, values in zip(
        ("sweep.encoders", "data.category", "sweep.seeds"), choices, strict=True
    ):
        if len({str(value).partition("=")[0] for value in values}) < len(values):
            raise UserError(f"{key}: {', '.join(map(str, values))} names one of them twice")
    several = [len(values) > 1 for values in choices]
    return [
        _member(config, several, encoder, category, seed)
        for encoder in encoders
        for category in choices[1]
        for seed in choices[2]
    ]


def _unstacked(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Moves what ``train.stack`` lists to where a sweep lists the same."""
    stack = tuple(config.train.stack)
    if not stack:
        return config
    own = config.copy_and_resolve_references()
    own.train.stack = ()
    if len(config.sweep.encoders) > 1:
        raise UserError("train.stack: its members share one encoder, but sweep.encoders has more")
    if all(isinstance(entry, str) for entry in stack):
        own.data.category = ",".join(stack)
    elif all(isinstance(entry, int) for entry in stack) and not config.sweep.seeds:
        own.sweep.seeds = stack
    else:
        raise UserError(
            f"train.stack={stack}: lists categories, as ('bottle', 'cable') or ('all',), beside "
            "which sweep.seeds may list seeds, or itself seeds, as (0, 1, 2)"
        )
    return own


def _categories(config: config_dict.ConfigDict) -> list[str]:
    data = config.data
    if data.category != ALL:
        return [name.strip() for name in data.category.split(",")]
    found = sources.categories(data.name, data.root)
    if not found:
        raise UserError(f"data.category='{ALL}': '{data.root}' holds no category of {data.name}")
    return found


def _member(
    config: config_dict.ConfigDict, several: list[bool], encoder: str, category: str, seed: int
) -> Member:
    own = config.copy_and_resolve_references()
    own.sweep.seeds, own.sweep.encoders = (), ()
    own.data.category, own.seed = category, seed
    own.encoder.name, _, weights = encoder.partition("=")
    own.encoder.weights = weights or own.encoder.weights
    parts = (own.encoder.name, category, f"seed_{seed}")
    folder = "/".join(part for part, shown in zip(parts, several, strict=True) if shown)
    return Member(folder or own.encoder.name, own.lock())


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
      status: ``"done"`` or ``"failed"``.
      fault: a line that says why.
    """

    status: str = "done"
    fault: str = ""


@contextlib.contextmanager
def attempt(member: Member, root: Path) -> Iterator[Outcome]:
    """Lets no fault of a run reach the others; it becomes the run's outcome.

    Raises:
      Interrupted: a signal asked to stop, which is no fault.
    """
    outcome = Outcome()
    try:
        yield outcome
    except Interrupted:
        raise
    except UserError as error:
        outcome.status, outcome.fault = "failed", str(error)
        log.error("%s: failed: %s", member.folder, error)
    except Exception as error:  # the others shall not suffer from a fault of ours or of a driver
        trace = root / member.folder / ERROR
        files.write_text(trace, traceback.format_exc())
        line = (str(error) or type(error).__name__).splitlines()[0]
        outcome.status, outcome.fault = "failed", f"{line} (see {ERROR})"
        log.error("%s: failed unexpectedly: %s; see %s", member.folder, line, trace)
