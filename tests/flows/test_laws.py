"""Laws that every flow obeys, in float64: a new flow is one line in FLOWS."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.flows import MLP, Clamp, CouplingBlock, Flow, cflow_decoder, permutation

ROW, MAP = (), (2, 3)  # event axes before the channels


def block(channels, permutation="soft", **options):
    return CouplingBlock(channels, MLP, permutation=permutation, **options)


# name -> (flow, channels, event axes, condition size)
FLOWS = {
    "soft": (partial(block, 6), 6, ROW, 4),
    "soft odd": (partial(block, 5), 5, ROW, 4),
    "soft unconditional": (partial(block, 6), 6, ROW, 0),
    "hard": (partial(block, 6, "hard"), 6, ROW, 4),
    "hard odd unconditional": (partial(block, 7, "hard"), 7, ROW, 0),
    "two channels": (partial(block, 2), 2, ROW, 4),
    "clamp ratio": (partial(block, 6, clamp=Clamp(2.0, "tanh_ratio")), 6, ROW, 4),
    "maps soft": (partial(block, 4), 4, MAP, 4),
    "maps hard odd": (partial(block, 5, "hard"), 5, MAP, 0),
    "chain": (partial(cflow_decoder, 6, blocks=3), 6, ROW, 4),
    "chain hard odd": (partial(cflow_decoder, 5, blocks=3, permutation="hard"), 5, ROW, 0),
    "mixed chain on maps": (lambda: Flow((block(4), block(4, "hard"))), 4, MAP, 4),
}
BATCH = 3


@pytest.fixture(params=FLOWS, name="case", scope="module")
def _case(request):
    """A flow with weights away from their initial values, and data for it, in float64."""
    make, channels, event, condition = FLOWS[request.param]
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 4)
        x = jax.random.normal(keys[0], (BATCH, *event, channels), jnp.float64)
        cond = None
        if condition:
            cond = jax.random.normal(keys[1], (BATCH, *event, condition), jnp.float64)
        flow = make()
        if not isinstance(flow, Flow):
            flow = Flow((flow,))
        variables = jax.jit(flow.init)(keys[2], x, cond)
        noise = np.random.default_rng(1)
        params = jax.tree.map(
            lambda p: jnp.asarray(p + 0.5 * noise.normal(size=p.shape), jnp.float64),
            variables["params"],
        )
        yield flow, {**variables, "params": params}, x, cond


def test_inverse_undoes_forward(case):
    flow, variables, x, cond = case
    z, log_det = jax.jit(flow.apply)(variables, x, cond)
    inverse = jax.jit(partial(flow.apply, method="inverse"))
    back, log_det_back = inverse(variables, z, cond)
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-9)
    assert np.abs(z - x).max() > 1e-3
    assert log_det.shape == (BATCH,)


def test_the_last_permutation_can_be_left_out(case):
    flow, variables, x, cond = case
    z, log_det = flow.apply(variables, x, cond)
    before, same = flow.apply(variables, x, cond, mix_last=False)
    last = flow.bind(variables).blocks[-1].mixing
    np.testing.assert_array_equal(permutation.apply(last, before), z)
    np.testing.assert_array_equal(log_det, same)
    assert np.abs(z - before).max() > 1e-3


def test_log_det_is_that_of_the_jacobian(case):
    flow, variables, x, cond = case
    _, log_det = jax.jit(flow.apply)(variables, x, cond)

    @jax.jit
    def jacobian(row, condition):
        def flat(values):
            return flow.apply(variables, values.reshape(1, *row.shape), condition)[0].ravel()

        return jax.jacfwd(flat)(row.ravel())

    for row in range(BATCH):
        condition = None if cond is None else cond[row : row + 1]
        _, expected = np.linalg.slogdet(jacobian(x[row], condition))
        np.testing.assert_allclose(log_det[row], expected, atol=1e-9)


def test_every_parameter_receives_a_gradient(case):
    flow, variables, x, cond = case

    def negative_log_likelihood(params):
        z, log_det = flow.apply({**variables, "params": params}, x, cond)
        return jnp.sum(z**2) / 2 - jnp.sum(log_det)

    grads = jax.jit(jax.grad(negative_log_likelihood))(variables["params"])
    for path, grad in jax.tree.leaves_with_path(grads):
        assert np.abs(grad).max() > 0, f"no gradient reaches {jax.tree_util.keystr(path)}"


def test_distribution_is_the_change_of_variables(case):
    flow, variables, x, cond = case
    z, log_det = jax.jit(flow.apply)(variables, x, cond)
    axes = tuple(range(1, x.ndim))
    expected = -0.5 * jnp.sum(z**2 + jnp.log(2 * jnp.pi), axis=axes) + log_det
    shape = (2,) if cond is not None else (2, BATCH)

    @jax.jit
    def use(variables, x):
        distribution = flow.bind(variables).distribution(x.shape[1:], cond)
        sample, log_prob = distribution.sample_and_log_prob(
            seed=jax.random.key(3), sample_shape=shape
        )
        return distribution.log_prob(x), sample, log_prob, distribution.log_prob(sample)

    log_prob_x, sample, log_prob, log_prob_sample = use(variables, x)
    np.testing.assert_allclose(log_prob_x, expected, atol=1e-9)
    assert sample.shape == (2, *x.shape)
    np.testing.assert_allclose(log_prob_sample, log_prob, atol=1e-8)


def test_bijector_forward_is_the_flow(case):
    flow, variables, x, cond = case
    bijector = flow.bind(variables).bijector(cond, event_ndims=x.ndim - 1)
    z, log_det = bijector.forward_and_log_det(x)
    expected, expected_log_det = flow.apply(variables, x, cond)
    np.testing.assert_allclose(z, expected, atol=1e-12)
    np.testing.assert_allclose(log_det, expected_log_det, atol=1e-12)
    np.testing.assert_allclose(bijector.inverse(z), x, atol=1e-9)
