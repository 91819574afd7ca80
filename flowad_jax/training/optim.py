"""Adam per parameter group, with a rule for groups that have no gradient for a while.

CFLOW-AD steps one Adam over all decoders although only one decoder has a gradient at a time.
What happens to the others depends on the PyTorch version of the day: gradients were zeros (before
2.0), so momentum kept moving idle decoders while their second moments shrank; later they were
absent and idle decoders stood still.

Weight decay comes as PyTorch's Adam has it, in the gradient, or as its AdamW has it, beside Adam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from flowad_jax.errors import UserError
from flowad_jax.lookup import check_choice
from flowad_jax.types import Tree

IDLE_RULES = ("decay", "skip")
DECAYS = ("l2", "decoupled")

# After this many idle steps 0.9^k is below 1e-7 of the momentum: nothing float32 could see moves.
_DRIFT_STEPS = 160


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015) whose learning rate is given at every step.

    Attributes:
      idle: ``"decay"`` treats a group without gradient as having zero gradients, from its first
        own step on (PyTorch before 2.0, the published figures); ``"skip"`` leaves it alone.
      b1, b2, eps: the usual constants.
      weight_decay: pull of every parameter towards zero; 0 for none. Groups at rest do not decay.
      decay: ``"l2"`` adds ``weight_decay * params`` to the gradients, which Adam then scales
        (``torch.optim.Adam``, published with SSNF); ``"decoupled"`` first shrinks the parameters by
        ``learning_rate * weight_decay`` of them (Loshchilov and Hutter 2019, ``AdamW``).
    """

    idle: str = "decay"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay: str = "l2"

    def __post_init__(self) -> None:
        """Checks what a config sets."""
        check_choice("train.adam_idle", self.idle, IDLE_RULES)
        check_choice("train.decay", self.decay, DECAYS)
        if not 0 < self.eps < math.inf:
            raise UserError(f"train.adam_eps={self.eps}: must be above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"train.weight_decay={self.weight_decay}: must be 0 or above")

    @property
    def _transform(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps)

    def init(self, params: Tree) -> optax.ScaleByAdamState:
        """Returns the state of a fresh group."""
        return self._transform.init(params)

    def update(
        self, grads: Tree, state: optax.ScaleByAdamState, params: Tree, learning_rate: jax.Array
    ) -> tuple[Tree, optax.ScaleByAdamState]:
        """Takes one step and returns the new (params, state)."""
        if self.weight_decay and self.decay == "l2":
            grads = jax.tree.map(lambda g, p: g + self.weight_decay * p, grads, params)
        elif self.weight_decay:
            params = _descend(params, params, learning_rate * self.weight_decay)
        direction, state = self._transform.update(grads, state)
        return _descend(params, direction, learning_rate), state

    def rest(
        self,
        params: Tree,
        state: optax.ScaleByAdamState,
        steps: jax.Array,
        learning_rate: jax.Array,
    ) -> tuple[Tree, optax.ScaleByAdamState]:
        """Lets a group sit through ``steps`` steps of the others; returns (params, state).

        Under ``"decay"`` this equals ``steps`` Adam steps with zero gradients, with the moments in
        closed form and the drift of the parameters summed until it has died out.
        """
        if self.idle == "skip":
            return params, state
        steps = jnp.where(state.count > 0, steps, 0)

        def drift(index, params):
            direction = jax.tree.map(
                lambda m, v: self._direction(m, v, state.count, index), *moments
            )
            return _descend(params, direction, learning_rate)

        moments = (state.mu, state.nu)
        params = jax.lax.fori_loop(1, jnp.minimum(steps, _DRIFT_STEPS) + 1, drift, params)
        mu = jax.tree.map(lambda m: m * self.b1**steps, state.mu)
        nu = jax.tree.map(lambda v: v * self.b2**steps, state.nu)
        return params, optax.ScaleByAdamState(state.count + steps, mu, nu)

    def _direction(self, m, v, count, idle_steps):
        """Adam's direction after ``idle_steps`` zero gradients."""
        step = count + idle_steps
        m_hat = m * self.b1**idle_steps / (1 - self.b1**step)
        v_hat = v * self.b2**idle_steps / (1 - self.b2**step)
        return m_hat / (jnp.sqrt(v_hat) + self.eps)


def _descend(params: Tree, direction: Tree, learning_rate: jax.Array) -> Tree:
    return jax.tree.map(lambda p, d: p - learning_rate * d, params, direction)
