"""Whitened features and noise on features, around a method that shows what it is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.detector import robust
from flowad_jax.errors import UserError
from flowad_jax.methods import fastflow, gaussian
from flowad_jax.types import Batch

SHAPES = ((6, 4, 5), (3, 2, 3))


def mixing(channels):
    """Correlated channels of different variances, none of them nearly constant."""
    return np.tri(channels) + np.diag(np.arange(channels))


def batch_of(images=40, seed=0):
    rng = np.random.default_rng(seed)
    maps = tuple(
        (rng.normal(size=(images, *shape)) @ mixing(shape[-1]) + 7).astype(np.float32)
        for shape in SHAPES
    )
    label = (np.arange(images) % 4 == 3).astype(np.int32)
    maps = tuple(np.where(label[:, None, None, None] == 1, 50 + x, x) for x in maps)
    return Batch(maps, None, None, label, np.ones(images, np.float32))


def fitted(method, batch):
    variables = method.init(jax.random.key(0), batch)
    halves = (slice(25), slice(25, None))
    parts = [jax.tree.map(lambda x, rows=rows: x[rows], batch) for rows in halves]
    return {**variables, "buffers": method.fit(variables, parts)}


def test_normal_features_have_mean_0_and_covariance_1():
    """As far as shrinkage lets them, which is small for so many rows."""
    batch = batch_of(400)
    method = robust.whitened(fastflow.build(1))
    variables = fitted(method, batch)
    seen = robust._apply(variables["buffers"], batch).maps
    for x in seen:
        rows = np.asarray(x)[batch.label == 0].reshape(-1, x.shape[-1])
        np.testing.assert_allclose(rows.mean(0), 0, atol=1e-3)
        np.testing.assert_allclose(np.cov(rows.T), np.eye(x.shape[-1]), atol=0.1)


def test_flows_see_whitened_features_when_they_learn_and_when_they_score():
    batch, plain = batch_of(), fastflow.build(1)
    method = robust.whitened(plain)
    variables = fitted(method, batch)
    inside = robust._apply(variables["buffers"], batch)
    own = {**variables, "buffers": robust._others(variables["buffers"])}
    pairs = zip(method.log_probs(variables, batch), plain.log_probs(own, inside), strict=True)
    for ours, expected in pairs:
        np.testing.assert_allclose(ours, expected)
    assert robust.WHITENING not in variables["params"]
    losses = []
    for one, buffers, given in (
        (method, variables["buffers"], batch),
        (plain, own["buffers"], inside),
    ):
        (phase,) = one.phases(buffers, given, jax.random.key(0))
        minibatch = jax.tree.map(lambda x: x[0], phase.minibatches)
        losses.append(float(phase.loss_fn(variables["params"], {}, minibatch)[0]))
    assert losses[0] == pytest.approx(losses[1])


def test_before_the_fit_nothing_is_changed():
    batch = batch_of(4)
    method = robust.whitened(fastflow.build(1))
    buffers = method.init(jax.random.key(0), batch)["buffers"]
    for x, same in zip(batch.maps, robust._apply(buffers, batch).maps, strict=True):
        np.testing.assert_allclose(same, x, rtol=1e-6)


def test_a_method_that_fits_features_itself_is_not_whitened():
    with pytest.raises(UserError, match=r"train\.whiten=True: this method fits the features"):
        robust.whitened(gaussian.build())


def test_features_without_variance_are_refused():
    batch = batch_of()
    flat = batch._replace(maps=tuple(np.ones_like(x) for x in batch.maps))
    with pytest.raises(UserError, match=r"features of scale 0 do not vary"):
        fitted(robust.whitened(fastflow.build(1)), flat)


def test_noise_has_its_share_of_the_deviation_and_is_for_training_alone():
    batch, plain = batch_of(), fastflow.build(1)
    padded = batch._replace(weight=(np.arange(40) < 30).astype(np.float32))
    method = robust.noisy(plain, 0.1)
    variables = method.init(jax.random.key(0), batch)
    (phase,) = method.phases(variables["buffers"], padded, jax.random.key(1))
    for x, given in zip(phase.minibatches["maps"], batch.maps, strict=True):
        noise = np.asarray(x[0]) - given
        assert noise.std() == pytest.approx(0.1 * given[:30].std(), rel=0.1)
        assert abs(noise.mean()) < 0.02 * given.std()
    (other,) = method.phases(variables["buffers"], padded, jax.random.key(2))
    assert not np.array_equal(other.minibatches["maps"][0], phase.minibatches["maps"][0])
    pairs = zip(method.log_probs(variables, batch), plain.log_probs(variables, batch), strict=True)
    for one, same in pairs:
        np.testing.assert_array_equal(one, same)


def test_noise_of_features_that_do_not_count_is_finite():
    batch = batch_of(4)._replace(weight=jnp.zeros(4))
    method = robust.noisy(fastflow.build(1), 0.1)
    variables = method.init(jax.random.key(0), batch)
    (phase,) = method.phases(variables["buffers"], batch, jax.random.key(1))
    assert all(np.isfinite(x).all() for x in phase.minibatches["maps"])
