"""The only place that applies gradients: runs the phases of a method on the maps of a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flowad_jax.parallel import ALONE, Devices
from flowad_jax.training.optim import Adam
from flowad_jax.training.schedules import Schedule
from flowad_jax.types import Batch, Method, Phase, TrainState, Tree

Metrics = dict[str, jax.Array]
FEATURES = "features"  # beside the parameter groups, in the metrics that say what is finite


def init_state(
    method: Method, optimizer: Adam, maps: tuple[jax.Array, ...], seed: int
) -> TrainState:
    """Draws a fresh state; of the maps (L of them, (B, h, w, C)) only the shapes matter."""
    init_rng, rng = jax.random.split(jax.random.key(seed))
    variables = _init(method)(init_rng, maps)
    params = variables["params"]
    opt_state = {group: optimizer.init(tree) for group, tree in params.items()}
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, variables["constants"], rng)


@functools.lru_cache(maxsize=4)
def _init(method: Method) -> Callable[..., dict[str, Tree]]:
    # Random numbers are cheap to draw and slow to compile: optimising that code takes minutes.
    return jax.jit(method.init, compiler_options={"xla_backend_optimization_level": 0})


def make_train_step(
    method: Method,
    optimizer: Adam,
    schedule: Schedule,
    clip_norm: float = 0.0,
    devices: Devices = ALONE,
) -> Callable[[TrainState, tuple[jax.Array, ...], Batch], tuple[TrainState, Metrics]]:
    """Returns what `make_maps_step` does, jitted.

    The old state is donated: do not use it after the call.
    """
    step = make_maps_step(method, optimizer, schedule, clip_norm, devices)
    return jax.jit(step, donate_argnums=0)


def make_maps_step(
    method: Method,
    optimizer: Adam,
    schedule: Schedule,
    clip_norm: float = 0.0,
    devices: Devices = ALONE,
) -> Callable[[TrainState, tuple[jax.Array, ...], Batch], tuple[TrainState, Metrics]]:
    """Returns the step on feature maps, not jitted: ``(state, maps, batch) -> (state, metrics)``.

    Metrics are ``learning_rate``, the mean ``loss`` over all gradient steps, ``loss/<groups>`` of
    each phase beside whatever else it reports, ``finite/<group>`` of the parameters and of the
    maps, and ``finite``, false as soon as one of these or the loss is not. Losses are per
    dimension where a phase says how many it has.

    Args:
      method: gives the phases.
      optimizer: steps every parameter group.
      schedule: learning rate by image batch.
      clip_norm: bound on the norm of the gradients of one step, see `clip`; 0 for none.
      devices: share the rows of every gradient step.
    """

    def maps_step(state: TrainState, maps: tuple[jax.Array, ...], batch: Batch):
        rng = jax.random.fold_in(state.rng, state.step)
        learning_rate = schedule(state.step)
        reports = {}
        for phase in method.phases(state.constants, maps, batch, rng):
            phase = phase._replace(minibatches=devices.spread(phase.minibatches))
            state, report = _run_phase(state, phase, optimizer, learning_rate, clip_norm)
            reports["+".join(phase.trains)] = (report, phase.active)
        metrics = _metrics(reports) | {"learning_rate": learning_rate}
        sound = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(maps)]
        metrics[f"finite/{FEATURES}"] = jnp.all(jnp.stack(sound))
        for group, params in state.params.items():
            metrics[f"finite/{group}"] = jnp.isfinite(optax.tree.norm(params))
        finite = [value for name, value in metrics.items() if name.startswith("finite/")]
        metrics["finite"] = jnp.isfinite(metrics["loss"]) & jnp.all(jnp.stack(finite))
        return state._replace(step=state.step + 1), metrics

    return maps_step


def make_stack_step(
    method: Method,
    optimizer: Adam,
    schedules: Sequence[Schedule],
    clip_norm: float = 0.0,
    at_once: bool = True,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Returns the jitted step of M detectors, ``(states, maps, batches, active) -> ...``.

    It returns ``(states, metrics)``; every array has a leading axis M. A detector that is not
    ``active`` (M,) keeps its state. The old states are donated.

    Args:
      method: of all.
      optimizer: of all.
      schedules: of each.
      clip_norm: see `make_maps_step`.
      at_once: all in the same operations, which fill an accelerator; else one after the other,
        which a processor does faster.
    """

    def one(state: TrainState, maps: tuple[jax.Array, ...], batch: Batch, rate: Any, active: Any):
        maps_step = make_maps_step(method, optimizer, lambda _: rate, clip_norm)
        new, metrics = maps_step(state, maps, batch)
        return jax.tree.map(lambda n, o: jnp.where(active, n, o), new, state), metrics

    def step(states: TrainState, maps: tuple[jax.Array, ...], batches: Batch, active: jax.Array):
        rates = jnp.stack([rate(states.step[m]) for m, rate in enumerate(schedules)])
        given = (states, maps, batches, rates, active)
        return jax.vmap(one)(*given) if at_once else jax.lax.map(lambda x: one(*x), given)

    return jax.jit(step, donate_argnums=0)


@functools.lru_cache(maxsize=4)  # members of a stack share the program
def make_loss(
    method: Method,
) -> Callable[[TrainState, tuple[jax.Array, ...], Batch], jax.Array]:
    """Returns the jitted ``(state, maps, batch) -> loss`` of `make_maps_step`, without a step."""

    def maps_loss(state: TrainState, maps: tuple[jax.Array, ...], batch: Batch) -> jax.Array:
        phases = method.phases(state.constants, maps, batch, jax.random.key(0))
        return _metrics({"+".join(phase.trains): _evaluate(state, phase) for phase in phases})[
            "loss"
        ]

    return jax.jit(maps_loss)


def clip(grads: Tree, limit: float) -> Tree:
    """Shortens gradients whose norm, over all leaves together, is above ``limit``; 0 for never.

    The factor is that of ``torch.nn.utils.clip_grad_norm_``: ``min(1, limit / (norm + 1e-6))``.
    """
    if not limit:
        return grads
    factor = jnp.minimum(1.0, limit / (optax.tree.norm(grads) + 1e-6))
    return jax.tree.map(lambda grad: grad * factor, grads)


def _run_phase(
    state: TrainState, phase: Phase, optimizer: Adam, learning_rate: jax.Array, clip_norm: float
) -> tuple[TrainState, Metrics]:
    """Scans the gradient steps of one phase; returns the state and what every step reports."""

    def train(carry, minibatch):
        params, opt_state, constants = carry
        gradient = jax.value_and_grad(phase.loss_fn, has_aux=True)
        (loss, aux), grads = gradient(params, constants, minibatch)
        grads = clip(grads, clip_norm)
        new = {g: optimizer.update(grads[g], opt_state[g], params[g], learning_rate) for g in grads}
        params, opt_state = ({g: pair[i] for g, pair in new.items()} for i in (0, 1))
        return (params, opt_state, aux.constants), {"loss": loss / phase.dimensions, **aux.metrics}

    def skip(carry, minibatch):
        params, _, constants = carry
        loss, aux = jax.eval_shape(phase.loss_fn, params, constants, minibatch)
        return carry, jax.tree.map(lambda x: jnp.zeros((), x.dtype), {"loss": loss, **aux.metrics})

    def one_step(carry, step):
        active, minibatch = step
        return jax.lax.cond(active, train, skip, carry, minibatch)

    params, opt_state = dict(state.params), dict(state.opt_state)
    constants = dict(state.constants)
    carry = tuple({g: tree[g] for g in phase.trains} for tree in (params, opt_state))
    carry += ({g: constants[g] for g in phase.updates},)
    carry, report = jax.lax.scan(one_step, carry, (phase.active, phase.minibatches))
    params.update(carry[0])
    opt_state.update(carry[1])
    constants.update(carry[2])
    for group in params.keys() - set(phase.trains):
        params[group], opt_state[group] = optimizer.rest(
            params[group], opt_state[group], jnp.sum(phase.active), learning_rate
        )
    return state._replace(params=params, opt_state=opt_state, constants=constants), report


def _evaluate(state: TrainState, phase: Phase) -> tuple[Metrics, jax.Array]:
    """The loss of every minibatch of a phase, and which of them count."""
    params = {group: state.params[group] for group in phase.trains}
    constants = {group: state.constants[group] for group in phase.updates}

    def loss(minibatch):
        return phase.loss_fn(params, constants, minibatch)[0] / phase.dimensions

    losses = jax.lax.map(loss, phase.minibatches)
    return {"loss": jnp.where(phase.active, losses, 0.0)}, phase.active


def _metrics(reports: dict[str, tuple[Metrics, jax.Array]]) -> Metrics:
    """Means over the steps that were active: each report by phase, the loss also over all."""
    metrics = {}
    total, steps = jnp.zeros(()), jnp.zeros((), jnp.int32)
    for phase, (report, active) in reports.items():
        count = jnp.sum(active)
        for name, values in report.items():
            metrics[f"{name}/{phase}"] = jnp.sum(values) / jnp.maximum(count, 1)
        total, steps = total + jnp.sum(report["loss"]), steps + count
    return metrics | {"loss": total / jnp.maximum(steps, 1)}
