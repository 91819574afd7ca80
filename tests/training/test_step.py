"""The gradient step: golden training steps, phases in order, padding, non-finite losses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.flows import cflow_decoder
from flowad_jax.methods import cflow
from flowad_jax.ops import arrays
from flowad_jax.training import schedules
from flowad_jax.training.metrics_log import explain_not_finite
from flowad_jax.training.optimizer import Adam, init_state
from flowad_jax.training.step import clip, make_loss, make_step
from flowad_jax.types import Aux, Batch, Phase
from flowad_jax.weights import freia
from tests import golden

METHOD = cflow.build(condition=8, blocks=1, fibre_size=8)
MAPS = tuple(
    np.random.default_rng(0).normal(2.0, 0.3, size=(2, *size)).astype(np.float32)
    for size in ((4, 4, 6), (2, 2, 10))
)


def batch(weight, maps=MAPS):
    return Batch(maps, weight=jnp.asarray(weight, jnp.float32))


@functools.cache
def step_of(method, adam, rate=1e-3):
    return jax.jit(make_step(method, adam, schedules.constant(rate, 1, 1)))


@functools.cache
def fresh(rule="decay", seed=0):
    """A state and the step that trains it; compiled once per rule."""
    return init_state(METHOD, Adam(rule), Batch(MAPS), seed), step_of(METHOD, Adam(rule))


def test_five_training_steps_agree_with_the_reference():
    stored = golden.load("cflow_decoder")
    variables = freia.chain(golden.state_dict(stored))
    size, flow = int(stored["train_batch"]), cflow_decoder(16)

    def log_prob(params, rows, cond):
        z, log_det = flow.apply({**variables, "params": params}, rows, cond)
        return arrays.gaussian_log_prob_per_dim(z, log_det)

    def loss_fn(params, updated, minibatch):
        value = log_prob(params["scale0"], minibatch["rows"], minibatch["cond"])
        return jnp.mean(cflow.OBJECTIVES["log_sigmoid"](value)), Aux(updated, {})

    def phases(buffers, batch, rng):
        chunks = {key: value[: 5 * size].reshape(5, size, -1) for key, value in batch.maps.items()}
        one = jax.tree.map(lambda leaf: leaf[batch.weight], chunks)
        return (Phase(("scale0",), loss_fn, one, jnp.ones(1, bool)),)

    def init(rng, batch):
        return {"params": {"scale0": variables["params"]}, "buffers": {}}

    method = dataclasses.replace(METHOD, init=init, phases=phases)
    maps = {"rows": stored["x"], "cond": stored["cond"]}
    state = init_state(method, Adam(), Batch(maps), seed=0)
    step = step_of(method, Adam(), float(stored["train_lr"]))
    losses = []
    for index in range(5):
        state, metrics = step(state, Batch(maps, weight=jnp.array([index])))
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses, stored["train_losses"], rtol=1e-5)
    after = jax.jit(log_prob)(state.params["scale0"], stored["x"], stored["cond"])
    np.testing.assert_allclose(after, stored["log_prob_per_dim_after"], rtol=1e-4, atol=1e-4)


def test_idle_groups_rest_by_the_rule():
    """Under "decay" the first scale counts the steps of the second; under "skip" it does not."""
    counts = {}
    for rule in ("decay", "skip"):
        state, step = fresh(rule)
        state, _ = step(state, batch([1, 1]))
        counts[rule] = [int(state.opt_state[f"scale{i}"].count) for i in (0, 1)]
    assert counts == {"decay": [4 + 1, 1], "skip": [4, 1]}


def test_non_finite_losses_are_flagged():
    maps = (MAPS[0], np.full_like(MAPS[1], np.inf))
    state, step = fresh()
    _, metrics = step(state, batch([1, 1], maps))
    assert not bool(metrics["finite"])
    assert np.isfinite(metrics["loss/scale0"])
    assert not np.isfinite(metrics["loss/scale1"])
    assert not metrics["finite/features"]
    assert "encoder.weights" in explain_not_finite(metrics)
    assert "learning_rate" not in explain_not_finite(metrics)


def test_a_learning_rate_is_blamed_where_features_are_finite():
    state, step = fresh()
    large = state._replace(params=jax.tree.map(lambda x: x * 1e30, state.params))
    _, metrics = step(large, batch([1, 1]))
    assert metrics["finite/features"]
    assert not metrics["finite"]
    assert explain_not_finite(metrics).endswith("of scale0, scale1: lower train.learning_rate")


def test_clipping_bounds_the_norm_over_all_groups():
    """As in PyTorch the factor is limit / (norm + 1e-6), and gradients are never made longer."""
    grads = {"a": jnp.array([3.0, 0.0]), "b": {"c": jnp.array([[4.0]])}}  # norm 5
    clipped = clip(grads, 2.0)
    np.testing.assert_allclose(clipped["a"], [3 * 2 / 5.000001, 0], rtol=1e-7)
    np.testing.assert_allclose(clipped["b"]["c"], [[4 * 2 / 5.000001]], rtol=1e-7)
    for limit in (6.0, 0.0):
        np.testing.assert_array_equal(clip(grads, limit)["a"], grads["a"])


@pytest.mark.live
def test_clipping_agrees_with_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=size).astype(np.float32) for size in ((7, 3), (5,))]
    theirs = [torch.nn.Parameter(torch.zeros(grad.shape)) for grad in grads]
    for parameter, grad in zip(theirs, grads, strict=True):
        parameter.grad = torch.tensor(grad)
    torch.nn.utils.clip_grad_norm_(theirs, 2.0)
    for ours, peer in zip(clip(grads, 2.0), theirs, strict=True):
        np.testing.assert_allclose(ours, peer.grad.numpy(), rtol=1e-6)


class Slope:
    """A loss of known gradient: the sum of two groups, times the given slopes."""

    def __init__(self, slopes, dimensions):
        self.slopes, self.dimensions = jnp.asarray(slopes), dimensions

    def __call__(self, buffers, batch, rng):
        def loss_fn(params, updated, minibatch):
            return self.slopes[0] * params["a"] + self.slopes[1] * params["b"], Aux(updated, {})

        return (Phase(("a", "b"), loss_fn, jnp.zeros((1, 1)), jnp.ones(1, bool), self.dimensions),)


class Descent:
    """Plain gradient descent in the place of Adam, so that gradients can be read off."""

    def init(self, params):
        return ()

    def update(self, grads, state, params, learning_rate):
        return params - learning_rate * grads, state


@pytest.mark.parametrize("clip_norm", [0.0, 2.0])
def test_a_step_clips_over_groups_and_reports_losses_per_dimension(clip_norm):
    start = {"params": {"a": jnp.array(1.0), "b": jnp.array(2.0)}, "buffers": {}}
    method = dataclasses.replace(
        METHOD, init=lambda rng, batch: start, phases=Slope((3.0, 4.0), dimensions=10)
    )
    rate = schedules.constant(1.0, 1, 1)
    step = jax.jit(make_step(method, Descent(), rate, clip_norm))
    state, metrics = step(init_state(method, Descent(), Batch(MAPS), seed=0), batch([1, 1]))
    factor = 2 / 5 if clip_norm else 1.0
    np.testing.assert_allclose(state.params["a"], 1 - 3 * factor, rtol=1e-5)
    np.testing.assert_allclose(state.params["b"], 2 - 4 * factor, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], (3 * 1 + 4 * 2) / 10, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss/a+b"], (3 * 1 + 4 * 2) / 10, rtol=1e-6)


def test_a_phase_carries_its_constants_from_step_to_step_and_reports_metrics():
    def loss_fn(params, updated, minibatch):
        value = minibatch.sum()
        return params["a"] * value, Aux({"seen": updated["seen"] + value}, {"value": value})

    def phases(buffers, batch, rng):
        active = jnp.array([True, False, True])
        return (Phase(("a",), loss_fn, jnp.array([[1.0], [2.0], [4.0]]), active, 1, ("seen",)),)

    start = {"params": {"a": jnp.array(1.0)}, "buffers": {"seen": 0.5, "fixed": 7.0}}
    method = dataclasses.replace(METHOD, init=lambda rng, batch: start, phases=phases)
    step = jax.jit(make_step(method, Descent(), schedules.constant(0.0, 1, 1)))
    state, metrics = step(init_state(method, Descent(), Batch(MAPS), seed=0), batch([1, 1]))
    assert {name: float(value) for name, value in state.buffers.items()} == {
        "seen": 5.5,
        "fixed": 7.0,
    }
    np.testing.assert_allclose([metrics["value/a"], metrics["loss/a"]], 2.5, rtol=1e-6)


def test_the_loss_without_a_step_is_that_of_a_step_at_rate_zero():
    state, _ = fresh()
    still = jax.jit(make_step(METHOD, Adam("skip"), schedules.constant(0.0, 1, 1)))
    rows = batch([1, 0])
    # With the state's key the step shuffles otherwise; the mean over all rows is the same here,
    # because every chunk of the real image is full.
    _, metrics = still(init_state(METHOD, Adam("skip"), rows, 0), rows)
    np.testing.assert_allclose(make_loss(METHOD)(state, rows), metrics["loss"], rtol=1e-5)
