"""Many detectors trained in one program: their gradient steps side by side, one encoder pass.

A batch of one category leaves an accelerator idle. Here every member of a stack brings its own
batch, order, epochs and random numbers, and ends as it would alone; only the operations are shared.
A member that is done or has failed makes room as soon as half of its stack is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flowad_jax import parallel
from flowad_jax.errors import UserError
from flowad_jax.features.batches import Encoded
from flowad_jax.features.store import Maps
from flowad_jax.parallel import ALONE
from flowad_jax.training import memory_plan, state, workdir
from flowad_jax.training.checkpoint import Checkpoints
from flowad_jax.training.interrupt import Interrupted, Signals
from flowad_jax.training.members import Member, Outcome, attempt
from flowad_jax.training.model import Model, build_model, sibling
from flowad_jax.training.run import Run, progress
from flowad_jax.training.step import make_stack_step
from flowad_jax.training.system import System, build
from flowad_jax.types import Batch, TrainState, Tree

Note = Callable[[Member, Outcome], None]

log = logging.getLogger("flowad_jax")


def train(members: Sequence[Member], root: Path, note: Note) -> None:
    """Trains members together, each into its folder below ``root``.

    Args:
      members: runs that differ in data and seed alone.
      root: the workdir of all.
      note: is told how each of them ended.

    Raises:
      Interrupted: a signal asked to stop; all states were saved.
    """
    with ExitStack() as opened, Signals() as signals:
        trainees = _begin(members, root, note, opened, signals)
        if not trainees:
            return
        opened.enter_context(memory_plan.told(_plan(trainees)))
        shared = _share_encoder([trainee.run for trainee in trainees])
        bar = opened.enter_context(progress([trainee.run for trainee in trainees]))
        for trainee in trainees:
            trainee.open(opened, bar)
        while trainees:
            trainees = _Stack(trainees, shared).train(signals)


class _Trainee:
    """A member of a stack, from its first batch to its report.

    Attributes:
      run: all of its training but the gradient steps.
      pair: its latest maps and batch.
      active: whether it has batches left.
      waiting: whether the latest batch still waits for its gradient step.
    """

    def __init__(self, member: Member, root: Path, note: Note, run: Run) -> None:
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


def _begin(
    members: Sequence[Member], root: Path, note: Note, opened: ExitStack, signals: Signals
) -> list[_Trainee]:
    """Builds the members; those whose data cannot be read are noted and left out."""
    trainees: list[_Trainee] = []
    model: Model | None = None
    first: System | None = None
    for member in members:
        with attempt(member, root) as outcome:
            model = sibling(model, member.config) if model else build_model(member.config)
            system = build(member.config, model, ALONE)
            first = first or system
            check_alike(first, system)
            state.check(system)
            path = workdir.claim(root / member.folder, member.config)
            checkpoints = opened.enter_context(closing(Checkpoints(path)))
            run = Run(system, path, checkpoints, title=member.folder)
            run.prepare_features(signals)
            trainees.append(_Trainee(member, root, note, run))
        if outcome.status != "done":
            note(member, outcome)
    return trainees


def _plan(trainees: list[_Trainee]) -> memory_plan.Plan | None:
    """What they need together, told to the user who wants to know."""
    system, count = trainees[0].run.system, len(trainees)
    if not system.config.train.plan_memory:
        return None
    plan = memory_plan.make(system, count, parallel.devices(count))
    memory_plan.show(plan)
    return plan


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


def _share_encoder(runs: list[Run]) -> bool:
    """Lets images pass the encoder together, unless features of some of them are kept."""
    supplies = [run.features.train for run in runs]
    encoded = [supply for supply in supplies if isinstance(supply, Encoded)]
    if len(encoded) < len(runs):
        return False
    for run, supply in zip(runs, encoded, strict=True):
        run.features = run.features._replace(train=supply.as_images())
    return True


class _Stack:
    """Trainees whose states lie stacked on the devices, each array with a leading axis M."""

    def __init__(self, trainees: list[_Trainee], shared: bool) -> None:
        self._trainees, self._shared = trainees, shared
        runs = [trainee.run for trainee in trainees]
        self._system = runs[0].system
        self._devices = parallel.devices(len(runs))
        self._variables = self._devices.everywhere(self._system.encoder.variables)
        self._states = self._placed([run.state for run in runs])
        for run in runs:
            del run.state  # lies in the stack
        self._step = make_stack_step(
            self._system.method,
            self._system.optimizer,
            [run.system.schedule for run in runs],
            self._system.config.train.clip_norm,
            at_once=self._devices.count > 1 or jax.default_backend() != "cpu",
        )

    def train(self, signals: Signals) -> list[_Trainee]:
        """Takes gradient steps until half of the trainees are done; returns the others."""
        enough = len(self._trainees) // 2
        while True:
            self._advance()
            active = [m for m, trainee in enumerate(self._trainees) if trainee.active]
            if len(active) <= enough:
                for m in active:
                    self._hand_back(m)
                return [self._trainees[m] for m in active]
            self._stop_if_asked(active, signals)
            self._take_step()

    def _advance(self) -> None:
        """Gets every trainee's next batch; where an epoch ends, it first gets its state."""
        for m, trainee in enumerate(self._trainees):
            if trainee.active and not trainee.waiting:
                if trainee.run.between_epochs:
                    self._hand_back(m)
                    trainee.advance()
                    del trainee.run.state  # no second copy stays
                else:
                    trainee.advance()

    def _take_step(self) -> None:
        pairs = [trainee.pair or self._any_pair() for trainee in self._trainees]
        maps, batches = self._placed(pairs)
        active = np.array([trainee.active for trainee in self._trainees])
        self._states, metrics = self._step(self._states, self._encoded(maps), batches, active)
        host = jax.device_get(metrics)
        for m, trainee in enumerate(self._trainees):
            if trainee.active:
                trainee.took({name: values[m] for name, values in host.items()})

    def _any_pair(self) -> tuple[Maps, Batch]:
        """Stands in for a trainee that failed before its first batch."""
        return next(trainee.pair for trainee in self._trainees if trainee.pair)

    def _stop_if_asked(self, active: list[int], signals: Signals) -> None:
        if not signals.received:
            return
        for m in active:
            self._hand_back(m)
            self._trainees[m].run.save()
        run = self._trainees[active[0]].run
        raise Interrupted(signals.received, run.position, run.workdir)

    def _hand_back(self, m: int) -> None:
        """Gives a run its state, on the device where it is scored."""
        own: TrainState = jax.tree.map(lambda leaf: leaf[m], self._states)
        self._trainees[m].run.state = jax.device_put(own, jax.devices()[0])

    def _encoded(self, maps: Maps) -> Maps:
        """Feature maps (M, B, h, w, C), of images (M, B, H, W, 3) if that is what came."""
        if not self._shared:
            return maps
        (images,) = maps
        found = self._system.encode(self._variables, images.reshape(-1, *images.shape[2:]))
        return tuple(x.reshape(*images.shape[:2], *x.shape[1:]).astype(jnp.float32) for x in found)

    def _placed(self, trees: Sequence[Tree]) -> Tree:
        """Stacks what the trainees have and gives every device its share of the trainees."""
        return self._devices.split(jax.tree.map(_stacked, *trees), len(trees))


def _stacked(*leaves: Any) -> Any:
    kind = np if isinstance(leaves[0], np.ndarray) else jnp
    return kind.stack(leaves)
