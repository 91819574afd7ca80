"""SANFlow's objective: the reference's values and gradients, its optima, what options change."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from flowad_jax.methods.sanflow import RELEASED
from flowad_jax.ops import inverse_gamma
from flowad_jax.ops.inverse_gamma import Objective
from tests import golden

INPUTS = ("z", "log_det", "log_alpha", "log_beta")


@functools.cache
def loss_and_gradients(settings):
    """Jitted ``(inputs, anomalous, weight) -> ((loss, metrics), gradients)``."""

    def loss(inputs, anomalous, weight):
        return inverse_gamma.loss(settings, *inputs, anomalous, weight)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def padded(inputs, anomalous):
    """All of them in the shapes of the golden tensors, the rest without weight."""
    rows = 40 - len(anomalous)
    whole = tuple(np.pad(x, [(0, rows), (0, 0)][: x.ndim]) for x in inputs)
    weight = np.pad(np.ones(len(anomalous), np.float32), (0, rows))
    return whole, np.pad(anomalous, (0, rows)), weight


@pytest.fixture(name="stored", scope="module")
def _stored():
    stored = golden.load("sanflow_objective")
    inputs = tuple(stored[name].squeeze() for name in INPUTS)
    return stored, inputs, stored["mask"][:, 0] > 0, np.ones(len(inputs[0]), np.float32)


def test_loss_and_gradients_agree_with_the_reference(stored):
    stored, *arguments = stored
    (loss, _), gradients = loss_and_gradients(Objective(**RELEASED))(*arguments)
    np.testing.assert_allclose(loss, stored["train_loss"], rtol=1e-6)
    for name, gradient in zip(INPUTS, gradients, strict=True):
        expected = stored[f"grad_{name}"].squeeze()
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7, err_msg=name)


def test_objective_of_every_row_agrees_with_the_reference(stored):
    stored, (z, log_det, log_alpha, log_beta), anomalous, weight = stored
    settings = Objective(**RELEASED)

    @jax.jit
    def objective(log_alpha, log_beta):
        given = inverse_gamma.posterior(settings, log_alpha, log_beta, anomalous)
        return inverse_gamma.terms(settings, z, log_det, given, anomalous, weight).per_dimension

    expected = stored["train_objective_per_dim"]
    np.testing.assert_allclose(objective(log_alpha, log_beta), expected, rtol=1e-5)


def test_scoring_agrees_with_the_reference(stored):
    stored, inputs, _, _ = stored
    score = jax.jit(lambda *a: inverse_gamma.log_prob_per_dim(Objective(), *a))
    np.testing.assert_allclose(score(*inputs), stored["test_log_prob_per_dim"], rtol=2e-6)


@pytest.mark.parametrize("released", [True, False])
def test_where_gradients_are_cut(released):
    """Clipped alphas have none; anomalous rows have none for beta, and for alpha if released."""
    settings = Objective(**RELEASED) if released else Objective()
    log_alpha = np.array([0.5, 12, 0.5, 0.5, -20, 12], np.float32)
    anomalous = np.array([0, 0, 1, 0.2, 0, 1]) > 0
    z = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32)
    inputs = (z, np.zeros(6, np.float32), log_alpha, np.full(6, 0.3, np.float32))
    _, gradients = loss_and_gradients(settings)(*padded(inputs, anomalous))
    of_alpha, of_beta = (-np.asarray(gradient[:6]) for gradient in gradients[2:])
    np.testing.assert_array_equal(of_alpha[[1, 4, 5]], 0)
    assert of_alpha[0] > 0
    assert (of_alpha[[2, 3]] > 0).all() if released else (of_alpha[[2, 3]] == 0).all()
    np.testing.assert_array_equal(of_beta[[2, 3, 5]], 0)
    assert (of_beta[[0, 1, 4]] != 0).all()


def test_divergence_from_the_prior():
    def divergence(alpha, beta):
        logs = (jnp.log(jnp.array([value])) for value in (alpha, beta))
        given = inverse_gamma.posterior(Objective(), *logs, jnp.zeros(1, bool))
        return float(inverse_gamma.divergence(Objective(), given)[0])

    assert divergence(1.0, 1.0) == pytest.approx(114.2066, rel=1e-6)
    assert divergence(59.5, 6.05) == pytest.approx(0.0, abs=1e-4)
    assert divergence(59.5, 7.0) > 0.1


def test_released_cross_entropy_saturates():
    likelihoods = jnp.array([[500.0, -500.0], [-500.0, 500.0], [3.0, 3.0]]).T
    both = [
        inverse_gamma.cross_entropy(
            Objective(**RELEASED), *likelihoods, jnp.full(3, truth), channels=8
        )
        for truth in (False, True)
    ]
    best, worst = math.log1p(math.exp(-1)), math.log1p(math.e)
    expected = [[best, worst, math.log(2)], [worst, best, math.log(2)]]
    np.testing.assert_allclose(both, expected, rtol=1e-5)
    np.testing.assert_allclose([best, worst], [0.3133, 1.3133], atol=1e-4)


@pytest.mark.parametrize(
    ("weight", "channels", "expected"),
    [(1.0, 512, 0.0192), (1.0, 2048, 0.0056), (0.5, 512, 0.1017), (0.5, 2048, 0.1017)],
)
def test_mean_square_of_the_latent_at_the_optimum(weight, channels, expected):
    """The released weight narrows wide scales: beta0 / (alpha0 + C / 2) instead of beta0 / alpha0.

    The flow is a scale factor: latents of mean square s cost a log-determinant of C / 2 * ln s.
    """
    settings = Objective(log_variance_weight=weight, cross_entropy_weight=0.0)

    @jax.jit
    @jax.value_and_grad
    def loss(logs):
        log_alpha, log_beta, log_square = (value[None] for value in logs)
        z = jnp.exp(log_square / 2)[:, None] * jnp.ones((1, channels))
        rows = (z, channels / 2 * log_square, log_alpha, log_beta)
        return inverse_gamma.loss(settings, *rows, jnp.zeros(1, bool), jnp.ones(1))[0]

    def in_double(logs):
        value, gradient = loss(logs)
        return float(value), np.asarray(gradient, np.float64)

    found = minimize(in_double, np.array([5.0, 2.0, -2.0]), jac=True, method="L-BFGS-B")
    log_alpha, log_beta, log_square = found.x
    alpha0, beta0 = settings.prior
    assert np.exp(log_square) == pytest.approx(expected, rel=0.02)
    assert np.exp(log_alpha) == pytest.approx(alpha0 + weight * channels, rel=0.02)
    assert np.exp(log_beta) == pytest.approx(beta0 + channels * expected / 2, rel=0.03)


def test_a_vanishing_variance_needs_the_floor():
    logs = (np.full(2, value, np.float32) for value in (-18.0, -95.0))
    inputs = (np.full((2, 12), 1.5, np.float32), np.zeros(2, np.float32), *logs)
    arguments = padded(inputs, np.zeros(2, bool))
    (loss, _), gradients = loss_and_gradients(Objective())(*arguments)
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    (loss, _), _ = loss_and_gradients(Objective(variance_floor=0.0))(*arguments)
    assert not np.isfinite(loss)


def test_rows_that_do_not_count_change_nothing(stored):
    _, inputs, anomalous, weight = stored
    evaluate = loss_and_gradients(Objective())
    half = np.where(np.arange(40) % 3 > 0, weight, 0)
    spoiled = tuple(np.where((half > 0).reshape(-1, *[1] * (x.ndim - 1)), x, 2) for x in inputs)
    (loss, metrics), gradients = evaluate(inputs, anomalous, half)
    (same, others), repeated = evaluate(spoiled, anomalous ^ (half == 0), half)
    np.testing.assert_allclose(loss, same, rtol=1e-6)
    for name in metrics:
        np.testing.assert_allclose(metrics[name], others[name], rtol=1e-5, err_msg=name)
    for one, two in zip(gradients, repeated, strict=True):
        np.testing.assert_array_equal(one[half == 0], 0)
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-8)
    kept = half > 0
    (alone, _), _ = evaluate(*padded([x[kept] for x in inputs], anomalous[kept]))
    np.testing.assert_allclose(loss, alone, rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"anomalous_mean": 2.0},
        {"prior_level": 0.2},
        {"prior_p": 5.0},
        {"variance_clip": 0.3},
        {"variance_floor": 0.5},
        {"log_alpha_clip": (1e-8, 0.9)},
        {"cross_entropy_weight": 0.0},
        {"cross_entropy": "double_softmax"},
        {"log_variance_weight": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_constant_counts(stored, change):
    _, inputs, anomalous, weight = stored
    losses = [
        inverse_gamma.loss(settings, *inputs, anomalous, weight)[0]
        for settings in (Objective(), Objective(**change))
    ]
    assert abs(losses[0] - losses[1]) > 1e-3
