"""An optimizer that also keeps a moving average of the parameters, which the detector ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import optax

from flowad_jax.training.optimizer import Adam, Optimizer
from flowad_jax.types import TrainState, Tree


@dataclass(frozen=True)
class Averaging:
    """Takes the steps of Adam and averages what they lead to; see `Optimizer`.

    Attributes:
      adam: takes the steps.
      decay: weight of the average of before in that of a step; the start is corrected for.
    """

    adam: Adam
    decay: float

    @property
    def _average(self) -> optax.GradientTransformation:
        return optax.ema(self.decay, debias=False)

    def init(self, params: Tree) -> Any:
        """Returns the state of a fresh group."""
        return self.adam.init(params), self._average.init(params)

    def update(
        self, grads: Tree, state: Any, params: Tree, learning_rate: jax.Array
    ) -> tuple[Tree, Any]:
        """Takes one step and returns the new (params, state)."""
        own, average = state
        params, own = self.adam.update(grads, own, params, learning_rate)
        _, average = self._average.update(params, average)
        return params, (own, average)

    def idle_step(
        self, params: Tree, state: Any, steps: jax.Array, learning_rate: jax.Array
    ) -> tuple[Tree, Any]:
        """Leaves a group idle; what moves meanwhile is not averaged."""
        own, average = state
        params, own = self.adam.idle_step(params, own, steps, learning_rate)
        return params, (own, average)

    def averaged(self, params: Tree, state: Any) -> Tree:
        """The average of all steps that a group has taken; its parameters if it took none."""
        _, (count, average) = state
        if int(count) == 0:
            return params
        return optax.tree.bias_correction(average, self.decay, count)


def final(state: TrainState, optimizer: Optimizer) -> TrainState:
    """Returns the state that a training ends with, whose parameters may be averages."""
    if not isinstance(optimizer, Averaging):
        return state
    params = {g: optimizer.averaged(own, state.opt_state[g]) for g, own in state.params.items()}
    return state._replace(params=params)
