"""Many detectors trained in one program: their gradient steps side by side, one encoder pass.

A batch of one category leaves an accelerator idle. Here every member of a stack brings its own
batch, order, epochs and random numbers, and ends as it would alone; only the operations are shared.
A member that is done or has failed makes room as soon as half of its stack is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowad_jax import parallel
from flowad_jax.features.batches import Encoded
from flowad_jax.features.store import Maps
from flowad_jax.training import memory_plan
from flowad_jax.training.interrupt import Interrupted, Signals
from flowad_jax.training.members import Member
from flowad_jax.training.run import Run, progress
from flowad_jax.training.step import make_stack_step
from flowad_jax.training.trainee import Note, Trainee, begin
from flowad_jax.types import Batch, TrainState, Tree


def train(
    members: Sequence[Member], root: Path, note: Note, allow_changed_data: bool = False
) -> None:
    """Trains members together, each into its folder below ``root``.

    Args:
      members: runs that differ in data and seed alone.
      root: the workdir of all.
      note: is told how each of them ended.
      allow_changed_data: see `loop.train`.

    Raises:
      Interrupted: a signal asked to stop; all states were saved.
    """
    with ExitStack() as opened, Signals() as signals:
        trainees = begin(members, root, note, opened, signals, allow_changed_data)
        if not trainees:
            return
        opened.enter_context(memory_plan.told(_plan(trainees)))
        shared = _share_encoder([trainee.run for trainee in trainees])
        bar = opened.enter_context(progress([trainee.run for trainee in trainees]))
        for trainee in trainees:
            trainee.open(opened, bar)
        while trainees:
            trainees = _Stack(trainees, shared).train(signals)


def _plan(trainees: list[Trainee]) -> memory_plan.Plan | None:
    """What they need together, told to the user who wants to know."""
    system, count = trainees[0].run.system, len(trainees)
    if not system.config.train.plan_memory:
        return None
    plan = memory_plan.make(system, count, parallel.devices(count))
    memory_plan.show(plan)
    return plan


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

    def __init__(self, trainees: list[Trainee], shared: bool) -> None:
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

    def train(self, signals: Signals) -> list[Trainee]:
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
