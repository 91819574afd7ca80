"""Facts about the coupling block and its permutations beyond the laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.flows import MLP, cflow_decoder, coupling, permutation


def order(seed, channels):
    return permutation.sample(jax.random.key(seed), channels, "hard")


def test_a_fresh_decoder_keeps_lengths_and_volume():
    """At the start a decoder is a product of rotations with tiny couplings in between."""
    flow = cflow_decoder(32)
    x, cond = jax.random.normal(jax.random.key(0), (64, 32)), jnp.zeros((64, 8))
    variables = jax.jit(flow.init)(jax.random.key(1), x, cond)
    z, log_det = jax.jit(flow.apply)(variables, x, cond)
    ratio = jnp.linalg.norm(z, axis=1) / jnp.linalg.norm(x, axis=1)
    np.testing.assert_allclose(ratio, 1.0, atol=0.25)
    assert np.abs(log_det).max() < 4.0
    scale = 0.1 * 2 * np.log1p(np.exp(coupling.GLOBAL_SCALE_INIT / 2))
    np.testing.assert_allclose(scale, 1.0, rtol=1e-6)
    # Every block of a chain has a permutation of its own.
    first, second = (variables["buffers"][f"blocks_{i}"]["permutation"] for i in (0, 1))
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize("channels", [2, 3, 16])
def test_soft_permutation_is_a_rotation(channels):
    rotation = permutation.sample(jax.random.key(channels), channels, "soft")
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(channels), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-5)


def test_hard_permutation_reorders():
    hard, x = order(0, 9), jnp.arange(9.0)[None]
    assert sorted(hard.tolist()) == list(range(9))
    np.testing.assert_array_equal(permutation.apply(hard, x)[0], np.asarray(hard, float))
    np.testing.assert_array_equal(permutation.invert(hard, permutation.apply(hard, x)), x)


@pytest.mark.parametrize("undo", [False, True])
def test_gradients_of_an_order_are_gathers(undo):
    """In both modes they are those of indexing, and nothing is scattered on the way back."""
    hard = order(0, 7)
    x, y = np.random.default_rng(1).normal(size=(2, 2, 3, 7)).astype(np.float32)
    mix = permutation.invert if undo else permutation.apply
    index = np.argsort(hard) if undo else np.asarray(hard)

    def pull(x, y):
        return jax.vjp(lambda x: mix(hard, x), x)[1](y)[0]

    expected = np.empty_like(y)
    expected[..., index] = y
    np.testing.assert_array_equal(pull(x, y), expected)
    np.testing.assert_array_equal(jax.jvp(lambda x: mix(hard, x), (x,), (y,))[1], y[..., index])
    assert "scatter" not in jax.jit(pull).lower(x, y).as_text()


def test_orders_of_several_flows_at_once():
    orders = jnp.stack([order(seed, 5) for seed in range(3)])
    x = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)

    def loss(x, order):
        return jnp.sum(permutation.apply(order, x) * jnp.arange(5.0))

    ours = jax.vmap(jax.grad(loss))(x, orders)
    np.testing.assert_array_equal(ours[:, 0], np.argsort(orders))


def test_parameter_counts_are_the_published_ones():
    """Methods table: Wide-ResNet-50-2 taps with a condition of 128 have 81,647,616 parameters."""
    expected = {512: 5_523_456, 1024: 17_074_176, 2048: 59_049_984}
    for channels, count in expected.items():
        x, cond = jnp.zeros((1, channels)), jnp.zeros((1, 128))
        shapes = jax.eval_shape(cflow_decoder(channels).init, jax.random.key(0), x, cond)
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count


def test_initial_weights_follow_pytorch():
    net = MLP(64).init(jax.random.key(0), jnp.zeros((1, 128)))["params"]
    for layer, fan_in in (("hidden", 128), ("out", 256)):
        for leaf in net[layer].values():
            assert np.abs(leaf).max() <= fan_in**-0.5
            np.testing.assert_allclose(np.std(leaf), fan_in**-0.5 / 3**0.5, rtol=0.2)


def test_distribution_needs_variables():
    with pytest.raises(UserError, match="bind"):
        cflow_decoder(4).distribution((4,))
