"""The gradient step: golden training steps, phases in order, padding, non-finite losses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from flowad_jax import ops
from flowad_jax.flows import cflow_decoder
from flowad_jax.methods import cflow
from flowad_jax.training import schedules
from flowad_jax.training.optim import Adam
from flowad_jax.training.step import init_state, make_maps_step
from flowad_jax.types import Batch, Phase
from flowad_jax.weights import freia
from tests import golden

METHOD = cflow.build(condition=8, blocks=1, fibre_size=8)
MAPS = tuple(
    np.random.default_rng(0).normal(2.0, 0.3, size=(2, *size)).astype(np.float32)
    for size in ((4, 4, 6), (2, 2, 10))
)


def batch(weight):
    return Batch(image=None, mask=None, label=None, weight=jnp.asarray(weight, jnp.float32))


@functools.cache
def step_of(method, adam, rate=1e-3):
    return jax.jit(make_maps_step(method, adam, schedules.constant(rate, 1, 1)))


@functools.cache
def fresh(rule="decay", seed=0):
    """A state and the step that trains it; compiled once per rule."""
    return init_state(METHOD, Adam(rule), MAPS, seed), step_of(METHOD, Adam(rule))


def test_five_training_steps_agree_with_the_reference():
    stored = golden.load("cflow_decoder")
    variables = freia.decoder(golden.state_dict(stored))
    size, flow = int(stored["train_batch"]), cflow_decoder(16)

    def log_prob(params, rows, cond):
        z, log_det = flow.apply({**variables, "params": params}, rows, cond)
        return ops.gaussian_log_prob_per_dim(z, log_det)

    def loss_fn(params, minibatch):
        value = log_prob(params["scale0"], minibatch["rows"], minibatch["cond"])
        return jnp.mean(cflow.OBJECTIVES["log_sigmoid"](value))

    def phases(constants, maps, batch, rng):
        chunks = {key: value[: 5 * size].reshape(5, size, -1) for key, value in maps.items()}
        one = jax.tree.map(lambda leaf: leaf[batch.weight], chunks)
        return (Phase(("scale0",), loss_fn, one, jnp.ones(1, bool)),)

    def init(rng, maps):
        return {"params": {"scale0": variables["params"]}, "constants": {}}

    method = dataclasses.replace(METHOD, init=init, phases=phases)
    maps = {"rows": stored["x"], "cond": stored["cond"]}
    state = init_state(method, Adam(), maps, seed=0)
    step = step_of(method, Adam(), float(stored["train_lr"]))
    losses = []
    for index in range(5):
        chunk = Batch(None, None, None, weight=jnp.array([index]))
        state, metrics = step(state, maps, chunk)
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses, stored["train_losses"], rtol=1e-5)
    after = jax.jit(log_prob)(state.params["scale0"], stored["x"], stored["cond"])
    np.testing.assert_allclose(after, stored["log_prob_per_dim_after"], rtol=1e-4, atol=1e-4)


def test_training_lowers_the_loss_of_every_scale():
    state, step = fresh()
    history = []
    for _ in range(60):
        state, metrics = step(state, MAPS, batch([1, 1]))
        history.append(metrics)
    assert bool(metrics["finite"])
    assert int(state.step) == 60
    for name in ("loss/scale0", "loss/scale1", "loss"):
        assert history[-1][name] < 0.9 * history[0][name]


def test_same_seed_same_run_and_other_seed_other_run():
    def params(seed):
        state, step = fresh(seed=seed)
        state, _ = step(state, MAPS, batch([1, 1]))
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])

    np.testing.assert_array_equal(params(0), params(0))
    assert not np.array_equal(params(0), params(1))


def test_a_batch_of_padding_changes_nothing_but_the_step():
    state, step = fresh()
    after, metrics = step(state, MAPS, batch([0, 0]))
    for old, new in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_array_equal(old, new)
    assert float(metrics["loss"]) == 0.0


def test_idle_groups_rest_by_the_rule():
    """Under "decay" the first scale counts the steps of the second; under "skip" it does not."""
    counts = {}
    for rule in ("decay", "skip"):
        state, step = fresh(rule)
        state, _ = step(state, MAPS, batch([1, 1]))
        counts[rule] = [int(state.opt_state[f"scale{i}"].count) for i in (0, 1)]
    assert counts == {"decay": [4 + 1, 1], "skip": [4, 1]}


def test_non_finite_losses_are_flagged():
    maps = (MAPS[0], np.full_like(MAPS[1], np.inf))
    state, step = fresh()
    _, metrics = step(state, maps, batch([1, 1]))
    assert not bool(metrics["finite"])
    assert np.isfinite(metrics["loss/scale0"])
    assert not np.isfinite(metrics["loss/scale1"])
