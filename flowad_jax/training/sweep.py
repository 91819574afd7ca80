"""Several runs by one command: all categories, seeds and encoders that a config asks for.

Every run has its own seed, state and folder, and ends as it would alone. A run that fails is
written down and the next one starts; the same command tries it again, and goes on with what is
left.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import config_dict

from flowad_jax import files, lock, parallel, schema
from flowad_jax.errors import UserError
from flowad_jax.evaluation import comparison
from flowad_jax.schema import TEXT, array, integer, table
from flowad_jax.training import stack, summary, workdir
from flowad_jax.training.loop import train
from flowad_jax.training.members import Member, Outcome, attempt, members

log = logging.getLogger("flowad_jax")

_FOLDER: schema.Schema = {  # a run lies below the workdir of all
    "type": "string",
    "pattern": r"\A(?!/|[A-Za-z]:)(?!(.*[/\\\\])?\.\.([/\\\\]|\Z))[^\x00-\x1f]+\Z",
    "description": "a folder below the workdir",
}
_LEDGER = table(
    {
        "runs": array(
            table(
                {
                    **{"folder": _FOLDER, "category": TEXT, "encoder": TEXT, "seed": integer()},
                    **{"status": {"enum": ["waiting", "done", "failed"]}, "fault": TEXT},
                }
            )
        )
    }
)


def run(
    config: config_dict.ConfigDict, directory: str | Path, allow_changed_data: bool = False
) -> dict[str, Any]:
    """Trains all runs, or those that are left, and writes one table.

    Args:
      config: the recipe; its ``data.category`` and ``sweep`` say which runs.
      directory: the workdir of all; each run has a folder in it.
      allow_changed_data: see `loop.train`.

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
    with lock.owning(path):
        return _run(config, path, planned, allow_changed_data)


def _run(
    config: config_dict.ConfigDict, path: Path, planned: list[Member], allow_changed_data: bool
) -> dict[str, Any]:
    """Trains those of the planned runs that are left."""
    ledger = _Ledger(path, planned)
    left = [member for member in planned if not ledger.done(member)]
    try:
        if config.train.stack:
            stack.train(left, path, ledger.note, allow_changed_data)
        else:
            _in_turn(left, path, ledger, allow_changed_data)
    finally:
        found = ledger.report(config.method.name, config.data.name)
    return found


def _in_turn(left: list[Member], path: Path, ledger: _Ledger, allow_changed_data: bool) -> None:
    for number, member in enumerate(left, start=1):
        log.info("run %d of %d: %s", number, len(left), member.folder)
        with attempt(member, path) as outcome:
            train(member.config, path / member.folder, allow_changed_data)
        ledger.note(member, outcome)
        jax.clear_caches()  # programs of other shapes and weights of other encoders
        gc.collect()


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

    def note(self, member: Member, outcome: Outcome) -> None:
        """Writes down how a run ended."""
        self._entries[member.folder] = member.facts | vars(outcome)
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
    return schema.read(ledger, _LEDGER, "remove it, and the same command makes it anew")["runs"]


def evaluate(
    directory: str | Path,
    scoring: str | None = None,
    rate: float | None = None,
    allow_import: Collection[str] = (),
) -> dict[str, Any]:
    """Scores all finished runs of a workdir again and rewrites the table.

    Args:
      directory: workdir of `run`.
      scoring: as in `summary.evaluate_workdir`.
      rate: as there.
      allow_import: as there.

    Raises:
      UserError: none of the runs is finished, or as there.
    """
    path = Path(directory).absolute()
    runs = read(path)
    if not any(entry["status"] == "done" for entry in runs):
        raise UserError(f"{path}: none of its {len(runs)} runs is finished; train.py goes on")
    with lock.owning(path):
        return _evaluate(path, runs, scoring, rate, allow_import)


def _evaluate(path: Path, runs: list[dict[str, Any]], *asked: Any) -> dict[str, Any]:
    for entry in runs:
        if entry["status"] == "done":
            log.info("%s", entry["folder"])
            written = summary.evaluate_workdir(path / entry["folder"], *asked)
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
