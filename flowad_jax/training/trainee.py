"""A member of a stack, from its config to its report; whatever fails is its own affair."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flowad_jax import lock
from flowad_jax.errors import UserError
from flowad_jax.features.store import Maps
from flowad_jax.parallel import ALONE
from flowad_jax.training import state, workdir
from flowad_jax.training.checkpoint import Checkpoints
from flowad_jax.training.interrupt import Signals
from flowad_jax.training.members import Member, Outcome, attempt
from flowad_jax.training.model import Model, build_model, sibling
from flowad_jax.training.run import Run
from flowad_jax.training.system import System, build
from flowad_jax.types import Batch

Note = Callable[[Member, Outcome], None]


class Trainee:
    """A member of a stack, from its first batch to its report.

    Attributes:
      run: all of its training but the gradient steps.
      pair: its latest maps and batch.
      active: whether it has batches left.
      waiting: whether the latest batch still waits for its gradient step.
    """

    def __init__(self, member: Member, root: Path, note: Note, run: Run) -> None:
        """Takes a run that has its features."""
        self.run, self.active, self.waiting = run, True, False
        self.pair: tuple[Maps, Batch] | None = None
        self._member, self._root, self._note = member, root, note
        self._batches: Generator[tuple[Maps, Batch], None, None]

    def open(self, opened: ExitStack, bar: tqdm) -> None:
        """Opens logs and data until ``opened`` is closed."""
        with attempt(self._member, self._root) as outcome:
            opened.enter_context(self.run.open(bar))
            self._batches = opened.enter_context(closing(self.run.batches()))
        self._settle(outcome)

    def advance(self) -> None:
        """Gets the next batch; after the last one, the report is written."""
        with attempt(self._member, self._root) as outcome:
            following = next(self._batches, None)
            if following is None:
                self.run.report()
                self.active = False
            self.pair, self.waiting = following or self.pair, True
        self._settle(outcome, ended=not self.active)

    def took(self, metrics: dict[str, Any]) -> None:
        """Notes what its gradient step reported."""
        with attempt(self._member, self._root) as outcome:
            self.run.took(metrics)
            self.waiting = False
        self._settle(outcome)

    def _settle(self, outcome: Outcome, ended: bool = False) -> None:
        if outcome.status != "done" or ended:
            self.active = False
            self._note(self._member, outcome)


def begin(
    members: Sequence[Member],
    root: Path,
    note: Note,
    opened: ExitStack,
    signals: Signals,
    allow_changed_data: bool = False,
) -> list[Trainee]:
    """Builds the members; those that cannot train are noted and left out.

    Args:
      members: runs that differ in data and seed alone.
      root: the workdir of all.
      note: is told of those that are left out, and later by the others how they ended.
      opened: closes what is opened here.
      signals: may stop what takes long.
      allow_changed_data: see `loop.train`.
    """
    trainees: list[Trainee] = []
    model: Model | None = None
    first: System | None = None
    for member in members:
        with attempt(member, root) as outcome:
            model = sibling(model, member.config) if model else build_model(member.config)
            path = root / member.folder
            workdir.check(path, member.config)
            system = build(member.config, model, ALONE, state.split_of(path, member.config))
            first = first or system
            check_alike(first, system)
            state.check(system)
            opened.enter_context(lock.owning(path))
            workdir.claim(path, member.config)
            checkpoints = opened.enter_context(closing(Checkpoints(path)))
            run = Run(system, path, checkpoints, member.folder, allow_changed_data)
            run.prepare_features(signals)
            trainees.append(Trainee(member, root, note, run))
        if outcome.status != "done":
            note(member, outcome)
    return trainees


def check_alike(first: System, other: System) -> None:
    """Raises a UserError if two runs cannot share a program."""
    for name, one, two in (
        ("data.image_size", first.image_size, other.image_size),
        ("train.batch_size", first.train_loader.batch_size, other.train_loader.batch_size),
    ):
        if one != two:
            raise UserError(
                f"train.stack: its members share a program, but {name} is {one} for one and {two} "
                "for another: train this one by itself"
            )
