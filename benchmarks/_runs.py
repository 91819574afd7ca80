"""Whole trainings for benchmarks: each in a process of its own, and all that one ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

TIMES = ("seconds", "seconds_waited", "images_per_second")


def start(
    config: str,
    workdir: Path,
    settings: Mapping[str, Any],
    overrides: list[str],
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen:
    """Starts a training, or goes on with it.

    Args:
      config: recipe.
      workdir: of the run.
      settings: keys of the recipe with other values.
      overrides: flags of the user, which win.
      environment: variables beside those of this process.
    """
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "train.py", f"--config={config}", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *flags, *overrides],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )


def finish(process: subprocess.Popen) -> None:
    """Waits for a run that must end well."""
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"the run failed: {said.strip().splitlines()[-1:]}")


def steps(workdir: Path) -> list[int]:
    """The complete checkpoints of a run."""
    folders = (workdir / "checkpoints").glob("*")
    return sorted(int(folder.name) for folder in folders if folder.name.isdigit())


def end(workdir: Path) -> dict[str, Any]:
    """All that a finished run is compared by."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    with ocp.PyTreeCheckpointer() as reader:
        state = reader.restore(workdir / "checkpoints" / str(steps(workdir)[-1]) / "state")
    return {
        "state": state,
        "columns": json.loads((workdir / "results.json").read_text())["columns"],
        "log": [{k: v for k, v in row.items() if k not in TIMES} for row in rows],
    }
