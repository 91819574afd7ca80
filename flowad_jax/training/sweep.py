"""Several runs by one command: all categories, seeds and encoders that a config asks for.

Every run has its own seed, state and folder, and ends as it would alone. A run that fails is
written down and the next one starts; the same command tries it again, and goes on with what is
left.
"""

from __future__ import annotations

import gc
import json
import logging
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import config_dict

from flowad_jax import files, parallel
from flowad_jax.data import sources
from flowad_jax.errors import UserError
from flowad_jax.evaluation import comparison
from flowad_jax.training import summary, workdir
from flowad_jax.training.interrupt import Interrupted
from flowad_jax.training.loop import train

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
    return bool(several or config.sweep.seeds or config.sweep.encoders)


def members(config: config_dict.ConfigDict) -> list[Member]:
    """Lists all runs; encoders change slowest, seeds fastest.

    Raises:
      UserError: the data set has no categories, or one is listed twice.
    """
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


def run(config: config_dict.ConfigDict, directory: str | Path) -> dict[str, Any]:
    """Trains all runs, or those that are left, and writes one table.

    Args:
      config: the recipe; its ``data.category`` and ``sweep`` say which runs.
      directory: the workdir of all; each run has a folder in it.

    Returns:
      The contents of its ``results.json``, see `comparison.write`.

    Raises:
      UserError: the folder belongs to something else, or cannot be written.
      Interrupted: a signal asked to stop; the same command goes on.
    """
    if parallel.host()[1] > 1:
        raise UserError("several runs are for one host: on a cluster start a job for each of them")
    path, planned = Path(directory).absolute(), members(config)
    if (path / workdir.CONFIG).exists():
        raise UserError(f"{path} holds a single run: use another --workdir for several")
    for member in planned:  # before the first one trains for hours
        workdir.check(path / member.folder, member.config)
    ledger = _Ledger(path, planned)
    try:
        for number, member in enumerate(planned, start=1):
            if ledger.done(member):
                continue
            log.info("run %d of %d: %s", number, len(planned), member.folder)
            ledger.note(member, *_attempt(path / member.folder, member))
            jax.clear_caches()  # programs of other shapes and weights of other encoders
            gc.collect()
    finally:
        found = ledger.report(config.method.name, config.data.name)
    return found


def _attempt(path: Path, member: Member) -> tuple[str, str]:
    """Trains one run; whatever stops it becomes its status and a line."""
    try:
        train(member.config, path)
    except Interrupted:
        raise
    except UserError as error:
        log.error("%s: failed: %s", member.folder, error)
        return "failed", str(error)
    except Exception as error:  # the others shall not suffer from a fault of ours or of a driver
        files.write_text(path / ERROR, traceback.format_exc())
        line = (str(error) or type(error).__name__).splitlines()[0]
        log.error("%s: failed unexpectedly: %s; see %s", member.folder, line, path / ERROR)
        return "failed", f"{line} (see {ERROR})"
    return "done", ""


class _Ledger:
    """What became of every run, in ``sweep.json``."""

    def __init__(self, path: Path, planned: list[Member]) -> None:
        self._path, self._planned = path, planned
        known = {entry["folder"]: entry for entry in read(path)}
        waiting = {"status": "waiting", "fault": ""}
        self._entries = {m.folder: known.pop(m.folder, m.facts | waiting) for m in planned}
        self._entries |= known  # of an earlier, longer list: still part of the table
        with files.writing(path):
            path.mkdir(parents=True, exist_ok=True)
        self._write()

    def done(self, member: Member) -> bool:
        """Whether a run ended, and its results are still there."""
        results = self._path / member.folder / "results.json"
        return self._entries[member.folder]["status"] == "done" and results.exists()

    def note(self, member: Member, status: str, fault: str) -> None:
        """Writes down how a run ended."""
        self._entries[member.folder] = member.facts | {"status": status, "fault": fault}
        self._write()

    def report(self, method: str, data: str) -> dict[str, Any]:
        """Writes the table."""
        return comparison.write(self._path, list(self._entries.values()), method=method, data=data)

    def _write(self) -> None:
        text = json.dumps({"runs": list(self._entries.values())}, indent=2) + "\n"
        files.write_text(self._path / workdir.LEDGER, text)


def read(path: Path) -> list[dict[str, Any]]:
    """The runs that a workdir of several holds; none if it is no such workdir.

    Raises:
      UserError: its list is damaged.
    """
    ledger = path / workdir.LEDGER
    if not ledger.exists():
        return []
    try:
        return json.loads(ledger.read_text())["runs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{ledger} cannot be read ({error}): remove it, and the same command makes it anew"
        ) from error


def evaluate(
    directory: str | Path, scoring: str | None = None, rate: float | None = None
) -> dict[str, Any]:
    """Scores all finished runs of a workdir again and rewrites the table.

    Args:
      directory: workdir of `run`.
      scoring: as in `summary.evaluate_workdir`.
      rate: as there.

    Raises:
      UserError: none of the runs is finished, or as there.
    """
    path = Path(directory).absolute()
    runs = read(path)
    for entry in runs:
        if entry["status"] == "done":
            log.info("%s", entry["folder"])
            written = summary.evaluate_workdir(path / entry["folder"], scoring, rate)
    if not any(entry["status"] == "done" for entry in runs):
        raise UserError(f"{path}: none of its {len(runs)} runs is finished; train.py goes on")
    return comparison.write(path, runs, method=written["method"], data=written["data"]["name"])


def headline(found: Mapping[str, Any]) -> str:
    """What a script prints at the end: the mean of each encoder's last epoch."""
    lines = []
    for mean in found["means"]:
        if mean["column"] == "last":
            values = {name: value["mean"] for name, value in mean["metrics"].items()}
            title = f"{mean['encoder']}, mean of {mean['runs']} of {mean['of']} runs, last epoch"
            lines.append(f"{title}: {summary.one_line(values)}")
    return "\n".join(lines)


def require_all(found: Mapping[str, Any]) -> None:
    """Raises a UserError if a run failed."""
    failed = [entry for entry in found["runs"] if entry["status"] == "failed"]
    if failed:
        first = failed[0]
        raise UserError(
            f"{len(failed)} of {len(found['runs'])} runs failed, first {first['folder']}: "
            f"{first['fault']} (the same command tries them again)"
        )
