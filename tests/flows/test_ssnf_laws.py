"""Laws of the flow of SSNF, in float64, with and without dropout."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.flows import ssnf_flow

FAST = {"xla_backend_optimization_level": 0}
IMAGES = 2
# name -> (flow, channels, key of the dropout or None)
FLOWS = {
    "published layout": (ssnf_flow(6, 2, hidden=8, heads=2), 6, None),
    "odd, dropped": (
        ssnf_flow(5, 2, hidden=9, heads=3, drop=0.3, layout=("attn+conv", "conv")),
        5,
        7,
    ),
    "attention, dropped": (ssnf_flow(4, 1, hidden=6, heads=1, layout="attn"), 4, 8),
}


@pytest.fixture(name="case", params=FLOWS, scope="module")
def _case(request):
    """A flow with weights away from their initial values, and maps for it, in float64."""
    flow, channels, seed = FLOWS[request.param]
    noise = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(noise.normal(size=(IMAGES, 2, 3, channels)))
        variables = jax.jit(flow.init, compiler_options=FAST)(jax.random.key(0), x)
        params = jax.tree.map(
            lambda p: jnp.asarray(p + 0.5 * noise.normal(size=p.shape)), variables["params"]
        )
        rngs = None if seed is None else {"dropout": jax.random.key(seed)}
        yield flow, {**variables, "params": params}, x, rngs


def test_inverse_undoes_forward(case):
    flow, variables, x, rngs = case

    @partial(jax.jit, compiler_options=FAST)
    def there_and_back(variables, x, rngs):
        z, log_det = flow.apply(variables, x, rngs=rngs)
        return z, log_det, *flow.apply(variables, z, rngs=rngs, method="inverse")

    z, log_det, back, log_det_back = there_and_back(variables, x, rngs)
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-9)
    assert z.dtype == log_det.dtype == np.float64
    assert np.abs(log_det).min() > 1e-2


def test_log_det_is_that_of_the_jacobian(case):
    flow, variables, x, rngs = case

    @partial(jax.jit, compiler_options=FAST)
    def jacobian(variables, image, rngs):
        def flat(values):
            z, log_det = flow.apply(variables, values.reshape(image.shape), rngs=rngs)
            return z.ravel(), log_det

        return jax.jacfwd(flat, has_aux=True)(image.ravel())

    for image in range(IMAGES):
        matrix, (log_det,) = jacobian(variables, x[image : image + 1], rngs)
        np.testing.assert_allclose(log_det, np.linalg.slogdet(matrix)[1], atol=1e-9)


def test_every_parameter_receives_a_gradient(case):
    flow, variables, x, rngs = case

    @partial(jax.jit, compiler_options=FAST)
    @jax.grad
    def gradients(params, constants, x, rngs):
        z, log_det = flow.apply({"params": params, "constants": constants}, x, rngs=rngs)
        return jnp.sum(z**2) / 2 - jnp.sum(log_det)

    grads = gradients(variables["params"], variables["constants"], x, rngs)
    for path, grad in jax.tree.leaves_with_path(grads):
        assert np.abs(grad).max() > 0, f"no gradient reaches {jax.tree_util.keystr(path)}"
