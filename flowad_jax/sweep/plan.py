"""Which trials a config asks for: all combinations of its encoders, categories and seeds."""

from __future__ import annotations

import contextlib
import itertools
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import config_dict

from flowad_jax import files
from flowad_jax.data import sources
from flowad_jax.errors import UserError
from flowad_jax.interrupt import Interrupted

ALL = "all"
ERROR = "error.txt"

log = logging.getLogger("flowad_jax")


class Trial(NamedTuple):
    """One run: its folder below the workdir of all, and its config without a list of anything."""

    folder: str
    config: config_dict.ConfigDict

    @property
    def facts(self) -> dict[str, Any]:
        """What tells it from the others."""
        config = self.config
        names = {"category": config.data.category or "", "encoder": config.encoder.name}
        return {"folder": self.folder, **names, "seed": config.seed}


Note = Callable[[Trial, str], None]  # is told how a trial ended: "" or a line that says what failed


def is_sweep(config: config_dict.ConfigDict) -> bool:
    """Says whether a config asks for more than one run."""
    category = config.data.category or ""
    several = category == ALL or "," in category
    return bool(several or config.sweep.seeds or config.sweep.encoders or config.train.stack)


def trials(config: config_dict.ConfigDict) -> list[Trial]:
    """Lists all runs; encoders change slowest, seeds fastest.

    Raises:
      UserError: the data set has no categories, or one is listed twice.
    """
    config = _unstacked(config)
    data, sweep = config.data, config.sweep
    categories = [name.strip() for name in (data.category or "").split(",")]
    if data.category == ALL and not (categories := sources.categories(data.name, data.root or "")):
        raise UserError(f"data.category='{ALL}': '{data.root}' holds no category of {data.name}")
    choices = {
        "sweep.encoders": list(sweep.encoders or ()) or [config.encoder.name],
        "data.category": categories,
        "sweep.seeds": list(sweep.seeds or ()) or [config.seed],
    }
    for key, values in choices.items():
        if len({str(value).partition("=")[0] for value in values}) < len(values):
            raise UserError(f"{key}: {', '.join(map(str, values))} names one of them twice")
    found = []
    for encoder, category, seed in itertools.product(*choices.values()):
        own = config.copy_and_resolve_references()
        own.sweep.seeds, own.sweep.encoders = None, None
        own.data.category, own.seed = category or None, seed
        own.encoder.name, _, weights = encoder.partition("=")
        own.encoder.weights = weights or own.encoder.weights
        parts = zip((own.encoder.name, category, f"seed_{seed}"), choices.values(), strict=True)
        folder = "/".join(part for part, values in parts if len(values) > 1)
        found.append(Trial(folder or own.encoder.name, own.lock()))
    return found


def _unstacked(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Moves what ``train.stack`` lists to where a sweep lists the same."""
    stack = tuple(config.train.stack or ())
    if not stack:
        return config
    own = config.copy_and_resolve_references()
    own.train.stack = None
    if len(config.sweep.encoders or ()) > 1:
        raise UserError("train.stack: its detectors share one encoder, but sweep.encoders has more")
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


@contextlib.contextmanager
def isolate_failure(trial: Trial, root: Path, note: Note) -> Iterator[None]:
    """Notes a failure of a trial, so that it does not affect the others.

    Raises:
      Interrupted: a signal asked to stop, which is no failure.
    """
    try:
        yield
    except Interrupted:
        raise
    except UserError as error:
        log.error("%s: failed: %s", trial.folder, error)
        note(trial, str(error))
    except Exception as error:  # a bug of ours or of a driver
        trace = root / trial.folder / ERROR
        files.write_text(trace, traceback.format_exc())
        line = (str(error) or type(error).__name__).splitlines()[0]
        log.error("%s: failed unexpectedly: %s; see %s", trial.folder, line, trace)
        note(trial, f"{line} (see {ERROR})")
