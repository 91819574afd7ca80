"""A run of a stack, from its config to its report; its failure does not affect the others."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from flowad_jax import lock
from flowad_jax.detector import state, workdir
from flowad_jax.detector.model import DetectorModel, build_model, sibling
from flowad_jax.errors import UserError
from flowad_jax.interrupt import Signals
from flowad_jax.parallel import ALONE
from flowad_jax.sweep.plan import Note, Trial, isolate_failure
from flowad_jax.training.experiment import Experiment, build
from flowad_jax.training.loop import end_epoch
from flowad_jax.training.run import TrainingRun
from flowad_jax.types import Batch


class StackedRun:
    """A run of a stack, from its first batch to its report.

    Attributes:
      run: all of its training but the gradient steps.
      batch: its latest one.
      active: whether it has batches left.
      waiting: whether the latest batch still waits for its gradient step.
    """

    def __init__(self, trial: Trial, root: Path, note: Note, run: TrainingRun) -> None:
        """Takes a run that has its features."""
        self.run, self.active, self.waiting = run, True, False
        self.batch: Batch | None = None
        self._trial, self._root, self._note = trial, root, note
        self._batches: Generator[Batch, None, None] | None = None

    def open(self, opened: ExitStack, bar: tqdm) -> None:
        """Opens logs and data until ``opened`` is closed."""
        with isolate_failure(self._trial, self._root, self._end):
            opened.enter_context(self.run.open(bar))
            opened.callback(lambda: self._batches.close() if self._batches else None)

    def advance(self) -> None:
        """Gets the next batch; after the last one, the report is written."""
        with isolate_failure(self._trial, self._root, self._end):
            following = self._next_batch()
            if following:
                self.batch, self.waiting = following, True
            else:
                self.run.report()
                self._end(self._trial, "")

    def _next_batch(self) -> Batch | None:
        """As the loop of `training.loop.train` has them."""
        while self.run.position.epoch < self.run.experiment.config.train.epochs:
            self._batches = self._batches or self.run.begin_epoch()
            for batch in self._batches:
                return batch
            self._batches = None
            end_epoch(self.run)
        return None

    def record_step(self, metrics: dict[str, Any]) -> None:
        """Notes what its gradient step reported."""
        with isolate_failure(self._trial, self._root, self._end):
            self.run.record_step(metrics)
            self.waiting = False

    def _end(self, trial: Trial, fault: str) -> None:
        self.active = False
        self._note(trial, fault)


def begin(
    trials: Sequence[Trial],
    root: Path,
    note: Note,
    opened: ExitStack,
    signals: Signals,
    allow_changed_data: bool = False,
) -> list[StackedRun]:
    """Builds the runs of a stack; those that cannot train are noted and left out.

    What is opened here is closed with ``opened``; ``signals`` may stop what takes long.
    """
    runs: list[StackedRun] = []
    model: DetectorModel | None = None
    first: Experiment | None = None
    for trial in trials:
        with isolate_failure(trial, root, note):
            model = sibling(model, trial.config) if model else build_model(trial.config)
            path = root / trial.folder
            workdir.check(path, trial.config)
            experiment = build(trial.config, model, ALONE, state.split_of(path, trial.config))
            first = first or experiment
            check_alike(first, experiment)
            _ = experiment.variable_shapes
            opened.enter_context(lock.owning(path))
            workdir.create_workdir(path, trial.config)
            run = TrainingRun(experiment, path, path, trial.folder, allow_changed_data)
            run.prepare_features(signals)
            runs.append(StackedRun(trial, root, note, run))
    return runs


def check_alike(first: Experiment, other: Experiment) -> None:
    """Raises a UserError if two runs cannot share a program."""
    for name, one, two in (
        ("data.image_size", first.canvas, other.canvas),
        ("train.batch_size", first.train_loader.batch_size, other.train_loader.batch_size),
    ):
        if one != two:
            raise UserError(
                f"train.stack: its detectors share a program, but {name} is {one} for one and "
                f"{two} for another: train this one by itself"
            )
