"""The only place that applies gradients: runs the phases of a method on a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from flowad_jax.parallel import ALONE, Devices
from flowad_jax.training.optimizer import Optimizer
from flowad_jax.training.schedules import Schedule
from flowad_jax.types import Batch, Method, Phase, TrainState, Tree

Metrics = dict[str, jax.Array]
FEATURES = "features"  # beside the parameter groups, in the metrics that say what is finite


def make_train_step(
    method: Method,
    optimizer: Optimizer,
    schedule: Schedule,
    clip_norm: float | None = None,
    devices: Devices = ALONE,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns what `make_step` does, jitted.

    The old state is donated: do not use it after the call.
    """
    step = make_step(method, optimizer, schedule, clip_norm, devices)
    return jax.jit(step, donate_argnums=0)


def make_step(
    method: Method,
    optimizer: Optimizer,
    schedule: Schedule,
    clip_norm: float | None = None,
    devices: Devices = ALONE,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the step, not jitted: ``(state, batch) -> (state, metrics)``.

    Metrics are ``learning_rate``, the mean ``loss`` over all gradient steps, ``loss/<groups>`` of
    each phase beside whatever else it reports, ``finite/<group>`` of the parameters and of the
    features, and ``finite``, false as soon as one of these or the loss is not. Losses are per
    dimension where a phase says how many it has.

    Args:
      method: gives the phases.
      optimizer: steps every parameter group.
      schedule: learning rate by image batch.
      clip_norm: bound on the norm of the gradients of one step, see `clip`; None for none.
      devices: share the rows of every gradient step.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(state.rng, state.step)
        learning_rate = schedule(state.step)
        reports = {}
        for phase in method.phases(state.buffers, batch, rng):
            phase = phase._replace(minibatches=devices.shard_minibatches(phase.minibatches))
            state, report = _run_phase(state, phase, optimizer, learning_rate, clip_norm)
            reports[_name(phase)] = (report, phase.active)
        metrics = _metrics(reports) | {"learning_rate": learning_rate}
        sound = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves((batch.maps, batch.image))]
        metrics[f"finite/{FEATURES}"] = jnp.all(jnp.stack(sound))
        for group, params in state.params.items():
            metrics[f"finite/{group}"] = jnp.isfinite(optax.tree.norm(params))
        finite = [value for name, value in metrics.items() if name.startswith("finite/")]
        metrics["finite"] = jnp.isfinite(metrics["loss"]) & jnp.all(jnp.stack(finite))
        return state._replace(step=state.step + 1), metrics

    return step


def make_stack_step(
    method: Method,
    optimizer: Optimizer,
    schedules: Sequence[Schedule],
    clip_norm: float | None = None,
    at_once: bool = True,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Returns the jitted step of M detectors: ``(states, batches, active) -> (states, metrics)``.

    Every array has a leading axis M. A detector that is not ``active`` (M,) keeps its state. The
    old states are donated.

    Args:
      method: shared by all detectors.
      optimizer: shared by all detectors.
      schedules: one per detector.
      clip_norm: see `make_step`.
      at_once: all in the same operations, which fill an accelerator; else one after the other,
        which a processor does faster.
    """

    def one(
        state: TrainState, batch: Batch, rate: jax.Array, active: jax.Array
    ) -> tuple[TrainState, Metrics]:
        new, metrics = make_step(method, optimizer, lambda _: rate, clip_norm)(state, batch)
        return jax.tree.map(lambda n, o: jnp.where(active, n, o), new, state), metrics

    def step(states: TrainState, batches: Batch, active: jax.Array) -> tuple[TrainState, Metrics]:
        rates = jnp.stack([rate(states.step[m]) for m, rate in enumerate(schedules)])
        given = (states, batches, rates, active)
        return jax.vmap(one)(*given) if at_once else jax.lax.map(lambda x: one(*x), given)

    return jax.jit(step, donate_argnums=0)


@functools.lru_cache(maxsize=4)  # members of a stack share the program
def make_loss(
    method: Method,
) -> Callable[[TrainState, Batch], jax.Array]:
    """Returns the jitted ``(state, batch) -> loss`` of `make_step`, without a step."""

    def loss(state: TrainState, batch: Batch) -> jax.Array:
        phases = method.phases(state.buffers, batch, jax.random.key(0))
        return _metrics({_name(phase): _evaluate(state, phase) for phase in phases})["loss"]

    return jax.jit(loss)


def clip(grads: Tree, limit: float | None) -> Tree:
    """Shortens gradients whose norm, over all leaves together, is above ``limit``; None for never.

    The factor is that of ``torch.nn.utils.clip_grad_norm_``: ``min(1, limit / (norm + 1e-6))``.
    """
    if not limit:
        return grads
    factor = jnp.minimum(1.0, limit / (optax.tree.norm(grads) + 1e-6))
    return jax.tree.map(lambda grad: grad * factor, grads)


def _run_phase(
    state: TrainState,
    phase: Phase,
    optimizer: Optimizer,
    learning_rate: jax.Array,
    clip_norm: float | None,
) -> tuple[TrainState, Metrics]:
    """Scans the gradient steps of one phase; returns the state and what every step reports."""

    def train(carry: Tree, minibatch: Tree) -> tuple[Tree, Metrics]:
        params, opt_state, buffers = carry
        gradient = jax.value_and_grad(phase.loss_fn, has_aux=True)
        (loss, aux), grads = gradient(params, buffers, minibatch)
        grads = clip(grads, clip_norm)
        new = {g: optimizer.update(grads[g], opt_state[g], params[g], learning_rate) for g in grads}
        params, opt_state = ({g: pair[i] for g, pair in new.items()} for i in (0, 1))
        return (params, opt_state, aux.buffers), {"loss": loss / phase.dimensions, **aux.metrics}

    def skip(carry: Tree, minibatch: Tree) -> tuple[Tree, Metrics]:
        params, _, buffers = carry
        loss, aux = jax.eval_shape(phase.loss_fn, params, buffers, minibatch)
        return carry, jax.tree.map(lambda x: jnp.zeros((), x.dtype), {"loss": loss, **aux.metrics})

    def one_step(carry: Tree, step: tuple[jax.Array, Tree]) -> tuple[Tree, Metrics]:
        active, minibatch = step
        return jax.lax.cond(active, train, skip, carry, minibatch)

    parts = (state.params, state.opt_state, state.buffers)
    names = (phase.param_groups, phase.param_groups, phase.mutable)
    carry = tuple({g: part[g] for g in own} for part, own in zip(parts, names, strict=True))
    carry, report = jax.lax.scan(one_step, carry, (phase.active, phase.minibatches))
    params, opt_state, buffers = (old | new for old, new in zip(parts, carry, strict=True))
    own = (group for group in params if group.startswith(phase.family))
    for group in set(own) - set(phase.param_groups):
        params[group], opt_state[group] = optimizer.idle_step(
            params[group], opt_state[group], jnp.sum(phase.active), learning_rate
        )
    return state._replace(params=params, opt_state=opt_state, buffers=buffers), report


def _name(phase: Phase) -> str:
    return "+".join(phase.param_groups) or "closed_form"  # nothing is left for gradients


def _evaluate(state: TrainState, phase: Phase) -> tuple[Metrics, jax.Array]:
    """The loss of every minibatch of a phase, and which of them count."""
    params = {group: state.params[group] for group in phase.param_groups}
    buffers = {group: state.buffers[group] for group in phase.mutable}

    def loss(minibatch: Tree) -> jax.Array:
        return phase.loss_fn(params, buffers, minibatch)[0] / phase.dimensions

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
