"""Flows against tensors stored from FrEIA 0.2."""

import jax
import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.flows import (
    MLP,
    Clamp,
    CouplingBlock,
    MultiScaleFlow,
    cflow_decoder,
    position_code,
)
from flowad_jax.ops.arrays import gaussian_log_prob_per_dim
from flowad_jax.weights import freia
from tests import golden

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("name", ["soft_cond", "hard_cond", "hard_uncond"])
def test_block(name):
    arrays = golden.load(f"allinone_{name}")
    params, buffers = freia.block(golden.state_dict(arrays))
    assert buffers["permutation"].ndim == (2 if name.startswith("soft") else 1)
    block = CouplingBlock(arrays["x"].shape[1], MLP, Clamp(float(arrays["clamp"])))
    variables, cond = {"params": params, "buffers": buffers}, arrays.get("cond")
    apply = jax.jit(block.apply, static_argnames="method")
    z, log_det = apply(variables, arrays["x"], cond)
    np.testing.assert_allclose(z, arrays["z"], **TOLERANCE)
    np.testing.assert_allclose(log_det, arrays["log_det"], **TOLERANCE)
    x, log_det = apply(variables, arrays["z"], cond, method="inverse")
    np.testing.assert_allclose(x, arrays["x_inv"], **TOLERANCE)
    np.testing.assert_allclose(log_det, arrays["log_det_inv"], **TOLERANCE)


def test_decoder():
    arrays = golden.load("cflow_decoder")
    variables = freia.chain(golden.state_dict(arrays))
    flow = cflow_decoder(arrays["x"].shape[1])
    apply = jax.jit(flow.apply, static_argnames="method")
    z, log_det = apply(variables, arrays["x"], arrays["cond"])
    np.testing.assert_allclose(z, arrays["z"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, arrays["log_det"], rtol=1e-4, atol=1e-5)
    log_prob = gaussian_log_prob_per_dim(z, log_det)
    np.testing.assert_allclose(log_prob, arrays["log_prob_per_dim"], rtol=1e-4, atol=1e-5)
    x, _ = apply(variables, z, arrays["cond"], method="inverse")
    np.testing.assert_allclose(x, arrays["x_inv"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(128, 7, 5), (64, 4, 4), (12, 3, 6)])
def test_position_code(size):
    stored = golden.load("positional_encoding_2d")["D{}_H{}_W{}".format(*size)]
    expected = stored.transpose(1, 2, 0)
    np.testing.assert_allclose(position_code(*size), expected, atol=1e-6)
    features, height, width = size
    code = MultiScaleFlow((3,), (1,), features).code(np.zeros((2, height, width, 3)))
    np.testing.assert_allclose(code, expected[None], atol=1e-6)


@pytest.mark.parametrize("features", [0, 6, -4])
def test_position_code_refuses_other_sizes(features):
    with pytest.raises(UserError, match="multiple of 4"):
        position_code(features, 2, 2)
