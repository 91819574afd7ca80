"""The training loop: batches in, checkpoints, metrics and results out."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from flowad_jax import parallel
from flowad_jax.detector import state, workdir
from flowad_jax.interrupt import Signals
from flowad_jax.training import memory_plan, optimizer
from flowad_jax.training.experiment import build
from flowad_jax.training.run import TrainingRun, progress
from flowad_jax.training.step import make_train_step


def train(
    config: config_dict.ConfigDict, directory: str | Path, allow_changed_data: bool = False
) -> dict[str, Any]:
    """Trains, or goes on with, the run of a workdir; then evaluates and reports.

    Args:
      config: the recipe; docs/configuration.md explains its keys.
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
    experiment = build(config, split=state.split_of(path, config))
    _ = experiment.variable_shapes  # whether the method fits, before anything is written
    step = make_train_step(
        experiment.method,
        experiment.optimizer,
        experiment.schedule,
        config.train.clip_norm,
        experiment.devices,
    )
    with parallel.outputs(path) as outputs:
        if parallel.is_first():
            workdir.create_workdir(path, config)
        parallel.wait("workdir")
        plan, (done, *_) = None, workdir.meta_of(path).get("position", (0, 0))
        if done < config.train.epochs:  # else nothing would be compiled
            plan = memory_plan.make(experiment, step)
            plan.show()
        with memory_plan.explain_out_of_memory(plan), Signals() as signals:
            run = TrainingRun(experiment, path, outputs, allow_changed_data=allow_changed_data)
            run.prepare_features(signals)
            with progress([run]) as bar, run.open(bar):
                while run.position.epoch < config.train.epochs:
                    with closing(run.begin_epoch()) as batches:
                        for batch in batches:
                            run.state, metrics = step(run.state, batch)
                            run.record_step(metrics)
                            if not run.is_over:  # else there is nothing left to stop
                                run.stop_if_asked(signals)
                    end_epoch(run)
            return run.report()


def end_epoch(run: TrainingRun) -> None:
    """Logs an epoch whose steps are taken; where it is time, saves and evaluates the state."""
    run.log_epoch()
    config, done = run.experiment.config.train, run.position.epoch
    last = done == config.epochs
    if last:  # a state is saved once, so what is fitted must be there by then
        run.state = optimizer.final(run.state, run.experiment.optimizer)
        run.fit()
    if last or done % config.checkpoint_every == 0:
        run.save()
    if run.is_evaluated(done):
        run.evaluate()
