"""The training loop: batches in, checkpoints, metrics and results out."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from flowad_jax import parallel
from flowad_jax.training import memory_plan, state, workdir
from flowad_jax.training.checkpoint import Checkpoints
from flowad_jax.training.interrupt import Signals
from flowad_jax.training.run import Run, progress
from flowad_jax.training.step import make_train_step
from flowad_jax.training.system import System, build


def train(
    config: config_dict.ConfigDict, directory: str | Path, allow_changed_data: bool = False
) -> dict[str, Any]:
    """Trains, or goes on with, the run of a workdir; then evaluates and reports.

    Args:
      config: the recipe, see `configs/base.py`.
      directory: the workdir; created if needed.
      allow_changed_data: go on although images were added, changed or removed since the last
        checkpoint; that is written down.

    Returns:
      The contents of ``results.json``.

    Raises:
      UserError: something the user can fix; the workdir keeps its last good state.
      Interrupted: a signal asked to stop; the state was saved.
    """
    path = Path(directory).absolute()
    workdir.check(path, config)
    system = build(config, split=state.split_of(path, config))
    state.check(system)  # before anything is written
    with parallel.outputs(path) as outputs:
        if parallel.is_first():
            workdir.claim(path, config)
        parallel.wait("workdir")
        plan = memory_plan.make(system) if config.train.plan_memory else None
        if plan:
            memory_plan.show(plan)
        with (
            memory_plan.told(plan),
            closing(Checkpoints(path)) as checkpoints,
            Signals() as signals,
        ):
            run = Run(system, outputs, checkpoints, allow_changed_data=allow_changed_data)
            run.prepare_features(signals)
            _steps(run, signals, system)
            return run.report()


def _steps(run: Run, signals: Signals, system: System) -> None:
    """Takes all gradient steps that are left."""
    step = make_train_step(
        system.method,
        system.optimizer,
        system.schedule,
        system.config.train.clip_norm,
        system.devices,
    )
    with progress([run]) as bar, run.open(bar), closing(run.batches()) as batches:
        for maps, batch in batches:
            run.state, metrics = step(run.state, maps, batch)
            run.took(metrics)
            if not run.is_over:  # else there is nothing left to stop
                run.stop_if_asked(signals)
