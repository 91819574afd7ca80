"""The variance network: outputs and running statistics of the reference, images of weight 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.flows.variance import VarianceNet
from flowad_jax.weights.dialects.sanflow import variance_net
from tests import golden


@pytest.fixture(name="stored", scope="module")
def _stored():
    return golden.load("sanflow_snet")


def channels_last(x):
    return np.moveaxis(x, 1, -1)


@functools.cache
def score(heads=1):
    return jax.jit(VarianceNet(heads).apply)


@jax.jit
def normalise_by_batch(variables, image, weight):
    return VarianceNet().apply(variables, image, weight, mutable=["buffers"])


def test_scoring_agrees_with_the_reference(stored):
    out = score()(variance_net(golden.state_dict(stored)), channels_last(stored["x_nchw"]))
    np.testing.assert_allclose(out, channels_last(stored["y_eval"]), rtol=1e-5, atol=1e-5)


def test_training_agrees_with_the_reference(stored):
    variables = variance_net(golden.state_dict(stored))
    image = channels_last(stored["x_nchw"])
    out, updated = normalise_by_batch(variables, image, jnp.ones(len(image)))
    np.testing.assert_allclose(out, channels_last(stored["y_train"]), rtol=1e-5, atol=1e-5)
    for layer in range(3):
        theirs = f"after/dncnn.{3 * layer + 1}.running_"
        for name, value in updated["buffers"][f"norm{layer}"].items():
            np.testing.assert_allclose(value, stored[theirs + name], rtol=1e-5, atol=1e-6)


def test_images_that_do_not_count_change_nothing(stored):
    """Neither the others' outputs nor the running statistics, whatever they hold."""
    variables = variance_net(golden.state_dict(stored))
    image = channels_last(stored["x_nchw"])
    padded = np.concatenate([image, np.full_like(image[:1], 7.0)])
    expected, statistics = normalise_by_batch(variables, image, jnp.ones(2))
    out, same = normalise_by_batch(variables, padded, jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(out[:2], expected, rtol=1e-5, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), same, statistics
    )


def test_size_and_initial_state():
    net = VarianceNet()
    variables = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 113_856
    for norm in variables["buffers"].values():
        np.testing.assert_array_equal(norm["mean"], np.zeros(64))
        np.testing.assert_array_equal(norm["var"], np.ones(64))
    for name, fan_in in (("first", 27), ("conv0", 576), ("last", 576)):
        largest = np.abs(variables["params"][name]["kernel"]).max()
        assert 0.95 < largest * fan_in**0.5 <= 1.0


def test_every_head_has_two_outputs():
    variables = jax.eval_shape(VarianceNet(3).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    out = jax.eval_shape(VarianceNet(3).apply, variables, jnp.zeros((2, 8, 8, 3)))
    assert out.shape == (2, 8, 8, 6)
