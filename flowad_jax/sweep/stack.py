"""Many detectors trained in one program: their gradient steps side by side, one encoder pass.

A batch of one category leaves an accelerator idle. Here every run of a stack brings its own
batch, order, epochs and random numbers, and ends as it would alone; only the operations are shared.
A run that is done or has failed makes room as soon as half of its stack is.
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
from flowad_jax.interrupt import Interrupted, Signals
from flowad_jax.sweep.plan import Note, Trial
from flowad_jax.sweep.stacked_run import StackedRun, begin
from flowad_jax.training import memory_plan
from flowad_jax.training.run import progress
from flowad_jax.training.step import make_stack_step
from flowad_jax.types import Batch, TrainState, Tree


def train(
    trials: Sequence[Trial], root: Path, note: Note, allow_changed_data: bool = False
) -> None:
    """Trains detectors that differ in data and seed alone, each into its folder below ``root``.

    ``note`` is told how each of them ended.

    Raises:
      Interrupted: a signal asked to stop; all states were saved.
    """
    with ExitStack() as opened, Signals() as signals:
        stacked = begin(trials, root, note, opened, signals, allow_changed_data)
        if not stacked:
            return
        runs = [one.run for one in stacked]
        shared = all(isinstance(run.features.train, Encoded) for run in runs)
        for run in runs if shared else ():  # images pass the encoder together
            images = Encoded(None, None, run.experiment.train_loader)
            run.features = run.features._replace(train=images)
        stack = _Stack(stacked, shared)
        plan = stack.plan()
        if plan:
            plan.show()
        opened.enter_context(memory_plan.explain_out_of_memory(plan))
        bar = opened.enter_context(progress(runs))
        for one in stacked:
            one.open(opened, bar)
        while left := stack.train(signals):
            stack = _Stack(left, shared)


class _Stack:
    """Runs whose states lie stacked on the devices, each array with a leading axis M."""

    _states: TrainState

    def __init__(self, stacked: list[StackedRun], shared: bool) -> None:
        self._stacked, self._shared = stacked, shared
        self._experiment = stacked[0].run.experiment
        self._devices = parallel.devices(len(stacked))
        self._variables = self._devices.replicate(self._experiment.encoder.variables)
        self._step = make_stack_step(
            self._experiment.method,
            self._experiment.optimizer,
            [one.run.experiment.schedule for one in stacked],
            self._experiment.config.train.clip_norm,
            at_once=self._devices.count > 1 or jax.default_backend() != "cpu",
        )

    def plan(self) -> memory_plan.MemoryPlan | None:
        """Returns what the runs need together; None if no epochs are left."""
        count, epochs = len(self._stacked), self._experiment.config.train.epochs
        if all(one.run.position.epoch == epochs for one in self._stacked):
            return None
        return memory_plan.make(self._experiment, self._step, count, self._devices)

    def train(self, signals: Signals) -> list[StackedRun]:
        """Takes gradient steps until half of the runs are done; returns the others."""
        enough = len(self._stacked) // 2
        self._states = self._placed([one.run.state for one in self._stacked])
        for one in self._stacked:
            del one.run.state  # lies in the stack
        while True:
            for m, one in enumerate(self._stacked):
                if one.active and not one.waiting:
                    self._advance(m, one)
            active = [m for m, one in enumerate(self._stacked) if one.active]
            if len(active) <= enough:
                for m in active:
                    self._hand_back(m)
                return [self._stacked[m] for m in active]
            if signals.received:
                self._stop(active, signals)
            self._take_step()

    def _advance(self, m: int, one: StackedRun) -> None:
        """Gets the next batch of a run; where an epoch ends, the run first gets its state."""
        between = one.run.between_epochs
        if between:
            self._hand_back(m)
        one.advance()
        if between:
            del one.run.state  # no second copy stays

    def _take_step(self) -> None:
        # A run that failed before its first batch needs one to stand in.
        some = next(one.batch for one in self._stacked if one.batch)
        batches = self._encoded(self._placed([one.batch or some for one in self._stacked]))
        active = np.array([one.active for one in self._stacked])
        self._states, metrics = self._step(self._states, batches, active)
        host = jax.device_get(metrics)
        for m, one in enumerate(self._stacked):
            if one.active:
                one.record_step({name: values[m] for name, values in host.items()})

    def _stop(self, active: list[int], signals: Signals) -> None:
        for m in active:
            self._hand_back(m)
            self._stacked[m].run.save()
        run = self._stacked[active[0]].run
        raise Interrupted(signals.received, run.position, run.workdir)

    def _hand_back(self, m: int) -> None:
        """Gives a run its state, on the device where it is scored."""
        own: TrainState = jax.tree.map(lambda leaf: leaf[m], self._states)
        self._stacked[m].run.state = jax.device_put(own, jax.devices()[0])

    def _encoded(self, batches: Batch) -> Batch:
        """The batches with feature maps (M, B, h, w, C), if they came without."""
        if not self._shared:
            return batches
        trials, rows, *shape = batches.image.shape
        found = self._experiment.encode(self._variables, batches.image.reshape(-1, *shape))
        found = jax.tree.map(lambda x: x.reshape(trials, rows, *x.shape[1:]), found)
        return batches._replace(maps=found.maps, image=found.image)

    def _placed(self, trees: Sequence[Tree]) -> Tree:
        """Stacks what the runs have and gives every device its share of the runs."""
        return self._devices.shard_batch(jax.tree.map(_stack_leaves, *trees), len(trees))


def _stack_leaves(*leaves: Any) -> Any:
    kind = np if isinstance(leaves[0], np.ndarray) else jnp
    return kind.stack(leaves)
