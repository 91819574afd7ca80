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
from flowad_jax.detector import workdir
from flowad_jax.errors import UserError
from flowad_jax.schema import TEXT, array, integer, table
from flowad_jax.sweep import comparison, stack
from flowad_jax.sweep.cross import train
from flowad_jax.sweep.plan import Trial, isolate_failure, trials
from flowad_jax.training import rescore, summary

log = logging.getLogger("flowad_jax")

_FOLDER: schema.Schema = {  # a run lies below the workdir of all
    "type": "string",
    "pattern": r"\A(?!/|[A-Za-z]:)(?!(.*[/\\\\])?\.\.([/\\\\]|\Z))[^\x00-\x1f]+\Z",
    "description": "a folder below the workdir",
}
_RUN = table(
    {
        **{"folder": _FOLDER, "category": TEXT, "encoder": TEXT, "seed": integer()},
        **{"status": {"enum": ["waiting", "done", "failed"]}, "fault": TEXT},
    }
)


def run(
    config: config_dict.ConfigDict, directory: str | Path, allow_changed_data: bool = False
) -> dict[str, Any]:
    """Trains all runs that a config asks for, or those that are left, and writes one table.

    Returns what `comparison.write` returns; `loop.train` says what the arguments are.

    Raises:
      UserError: the folder belongs to something else, or cannot be written.
      Interrupted: a signal asked to stop; the same command goes on.
    """
    if parallel.host()[1] > 1:
        raise UserError("several runs are for one host: on a cluster start a job for each of them")
    path, planned = Path(directory).absolute(), trials(config)
    if (path / workdir.CONFIG).exists():
        raise UserError(f"{path} holds a single run: use another --workdir for several")
    for trial in planned:  # before the first one trains for hours
        workdir.check(path / trial.folder, trial.config)
    with lock.owning(path):
        ledger = _Ledger(path, planned)
        left = [trial for trial in planned if not ledger.is_done(trial)]
        try:
            if config.train.stack:
                stack.train(left, path, ledger.note, allow_changed_data)
            else:
                for number, trial in enumerate(left, start=1):
                    log.info("run %d of %d: %s", number, len(left), trial.folder)
                    with isolate_failure(trial, path, ledger.note):
                        train(trial.config, path / trial.folder, allow_changed_data)
                        ledger.note(trial, "")
                    jax.clear_caches()  # programs of other shapes and weights of other encoders
                    gc.collect()
        finally:
            facts = {"method": config.method.name, "data": config.data.name}
            found = comparison.write(path, ledger.entries, **facts)
    return found


class _Ledger:
    """What became of every run, in ``sweep.json``."""

    def __init__(self, path: Path, planned: list[Trial]) -> None:
        self._path = path
        known = {entry["folder"]: entry for entry in read(path)}
        waiting = {"status": "waiting", "fault": ""}
        self._entries = {t.folder: known.pop(t.folder, t.facts | waiting) for t in planned}
        self._entries |= known  # of an earlier, longer list: still part of the table
        self._write()

    @property
    def entries(self) -> list[dict[str, Any]]:
        return list(self._entries.values())

    def is_done(self, trial: Trial) -> bool:
        """Whether a run ended, and its results are still there."""
        results = self._path / trial.folder / "results.json"
        return self._entries[trial.folder]["status"] == "done" and results.exists()

    def note(self, trial: Trial, fault: str) -> None:
        """Writes down how a run ended."""
        status = "failed" if fault else "done"
        self._entries[trial.folder] = trial.facts | {"status": status, "fault": fault}
        self._write()

    def _write(self) -> None:
        text = json.dumps({"runs": self.entries}, indent=2) + "\n"
        files.write_text(self._path / workdir.LEDGER, text)


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the runs that a workdir of several holds; none if it is no such workdir.

    Raises:
      UserError: its list is damaged.
    """
    ledger, remedy = path / workdir.LEDGER, "remove it, and the same command makes it anew"
    if not ledger.exists():
        return []
    return schema.read(ledger, table({"runs": array(_RUN)}), remedy)["runs"]


def evaluate(
    directory: str | Path,
    scoring: str | None = None,
    rate: float | None = None,
    allow_import: Collection[str] = (),
    threshold: float | str | None = None,
) -> dict[str, Any]:
    """Scores all finished runs again, see `rescore.evaluate_workdir`, and rewrites the table.

    Raises:
      UserError: none of the runs is finished, or as there.
    """
    path = Path(directory).absolute()
    runs = read(path)
    if not any(entry["status"] == "done" for entry in runs):
        raise UserError(f"{path}: none of its {len(runs)} runs is finished; flowad train goes on")
    with lock.owning(path):
        for entry in runs:
            if entry["status"] == "done":
                log.info("%s", entry["folder"])
                folder = path / entry["folder"]
                written = rescore.evaluate_workdir(folder, scoring, rate, allow_import, threshold)
        facts = {"method": written["method"], "data": written["data"]["name"]}
        return comparison.write(path, runs, **facts)


def headline(found: Mapping[str, Any]) -> str:
    """Returns what a script prints at the end: the mean of each encoder's last epoch."""
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
