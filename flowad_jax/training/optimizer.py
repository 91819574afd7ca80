"""Adam per parameter group, and the state that training starts from.

CFLOW-AD steps one Adam over all decoders although only one decoder has a gradient at a time.
What happens to the others depends on the PyTorch version of the day: gradients were zeros (before
2.0), so momentum kept moving idle decoders while their second moments shrank; later they were
absent and idle decoders stood still.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from ml_collections import config_dict

from flowad_jax.detector.model import DetectorModel
from flowad_jax.errors import UserError
from flowad_jax.lookup import check_choice
from flowad_jax.settings.keys import Train
from flowad_jax.types import Batch, Method, TrainState, Tree

# After this many idle steps 0.9^k is below 1e-7 of the momentum: nothing float32 could see moves.
_DRIFT_STEPS = 160


class Optimizer(Protocol):
    """What the gradient steps of a training need."""

    def init(self, params: Tree) -> Any:
        """Returns the state of a fresh group."""

    def update(
        self, grads: Tree, state: Any, params: Tree, learning_rate: jax.Array
    ) -> tuple[Tree, Any]:
        """Takes one step and returns the new (params, state)."""

    def idle_step(
        self, params: Tree, state: Any, steps: jax.Array, learning_rate: jax.Array
    ) -> tuple[Tree, Any]:
        """Leaves a group idle for ``steps`` steps of the others; returns (params, state)."""


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015) whose learning rate is given at every step.

    Attributes:
      idle: ``"decay"`` treats a group without gradient as having zero gradients, from its first
        own step on (PyTorch before 2.0, the published figures); ``"skip"`` leaves it alone.
      b1, b2, eps: the usual buffers.
      weight_decay: pull of every parameter towards zero; 0 for none. Idle groups do not decay.
      decay: ``"l2"`` adds ``weight_decay * params`` to the gradients, which Adam then scales
        (``torch.optim.Adam``, published with SSNF); ``"decoupled"`` first shrinks the parameters by
        ``learning_rate * weight_decay`` of them (Loshchilov and Hutter 2019, ``AdamW``).
    """

    idle: str = Train.adam_idle
    b1: float = 0.9
    b2: float = 0.999
    eps: float = Train.adam_eps
    weight_decay: float = Train.weight_decay
    decay: str = Train.decay

    def __post_init__(self) -> None:
        """Raises a UserError that names the config key of a wrong value."""
        check_choice("train.adam_idle", self.idle, ("decay", "skip"))
        check_choice("train.decay", self.decay, ("l2", "decoupled"))
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

    def idle_step(
        self,
        params: Tree,
        state: optax.ScaleByAdamState,
        steps: jax.Array,
        learning_rate: jax.Array,
    ) -> tuple[Tree, optax.ScaleByAdamState]:
        """Leaves a group idle for ``steps`` steps of the others; returns (params, state).

        Under ``"decay"`` this equals ``steps`` Adam steps with zero gradients, with the moments in
        closed form and the drift of the parameters summed until it has died out.
        """
        if self.idle == "skip":
            return params, state
        steps = jnp.where(state.count > 0, steps, 0)

        def direction(m: jax.Array, v: jax.Array, index: Any) -> jax.Array:
            """Adam's direction after ``index`` zero gradients."""
            step = state.count + index
            m_hat = m * self.b1**index / (1 - self.b1**step)
            v_hat = v * self.b2**index / (1 - self.b2**step)
            return m_hat / (jnp.sqrt(v_hat) + self.eps)

        def drift(index: Any, params: Tree) -> Tree:
            moved = jax.tree.map(lambda m, v: direction(m, v, index), state.mu, state.nu)
            return _descend(params, moved, learning_rate)

        params = jax.lax.fori_loop(1, jnp.minimum(steps, _DRIFT_STEPS) + 1, drift, params)
        mu = jax.tree.map(lambda m: m * self.b1**steps, state.mu)
        nu = jax.tree.map(lambda v: v * self.b2**steps, state.nu)
        return params, optax.ScaleByAdamState(state.count + steps, mu, nu)


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


def _descend(params: Tree, direction: Tree, learning_rate: jax.Array) -> Tree:
    return jax.tree.map(lambda p, d: p - learning_rate * d, params, direction)


def make_optimizer(train: config_dict.ConfigDict) -> Optimizer:
    """Returns the optimizer of all parameter groups that the config section ``train`` describes."""
    adam = Adam(
        idle=train.adam_idle,
        eps=train.adam_eps,
        weight_decay=train.weight_decay,
        decay=train.decay,
    )
    return Averaging(adam, train.ema_decay) if train.ema_decay else adam


def final(state: TrainState, optimizer: Optimizer) -> TrainState:
    """Returns the state that a training ends with, whose parameters may be averages."""
    if not isinstance(optimizer, Averaging):
        return state
    params = {g: optimizer.averaged(own, state.opt_state[g]) for g, own in state.params.items()}
    return state._replace(params=params)


def fresh_state(model: DetectorModel) -> TrainState:
    """Draws the initial state that the config's seed stands for."""
    batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), model.batch_shapes)
    optimizer = make_optimizer(model.config.train)
    return init_state(model.method, optimizer, batch, model.config.seed)


def state_shapes(model: DetectorModel) -> TrainState:
    """Returns a state of `jax.ShapeDtypeStruct`, as `fresh_state` would be."""
    build = functools.partial(_state, make_optimizer(model.config.train))
    return jax.eval_shape(build, model.variable_shapes, jax.random.key(0))


def init_state(method: Method, optimizer: Optimizer, batch: Batch, seed: int) -> TrainState:
    """Draws a fresh state; of the batch only the shapes of maps and image matter."""
    init_rng, rng = jax.random.split(jax.random.key(seed))
    return _state(optimizer, _init(method)(init_rng, batch), rng)


@functools.lru_cache(maxsize=4)
def _init(method: Method) -> Callable[..., dict[str, Tree]]:
    # Random numbers are cheap to draw and slow to compile: optimising that code takes minutes.
    return jax.jit(method.init, compiler_options={"xla_backend_optimization_level": 0})


def _state(optimizer: Optimizer, variables: dict[str, Tree], rng: jax.Array) -> TrainState:
    params = variables["params"]
    opt_state = {group: optimizer.init(tree) for group, tree in params.items()}
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, variables["buffers"], rng)
