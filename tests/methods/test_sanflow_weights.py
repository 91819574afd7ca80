"""Checkpoints of SANFlow: there and back, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.methods import sanflow
from flowad_jax.types import Batch
from flowad_jax.weights.dialects.sanflow import detector
from tests import golden

SHAPES = Batch((jnp.zeros((1, 4, 4, 6)), jnp.zeros((1, 2, 2, 5))), jnp.zeros((1, 16, 16, 3)))


@pytest.fixture(name="variables", scope="module")
def _variables():
    """Random numbers in the shapes that the method has."""
    rng = np.random.default_rng(0)
    method = sanflow.build(condition=4, blocks=2)
    shapes = jax.eval_shape(method.init, jax.random.key(0), SHAPES)

    def fill(leaf):
        if leaf.dtype == np.int32:
            return rng.permutation(leaf.size).astype(np.int32)
        return rng.normal(size=leaf.shape).astype(np.float32)

    return jax.tree.map(fill, shapes)


@pytest.fixture(name="variance")
def _variance():
    return golden.state_dict(golden.load("sanflow_snet"))


def decoder(variables, scale, permutation):
    """The state dict that the reference would have of a decoder of ours."""
    flat = {}
    for block, params in variables["params"][f"scale{scale}"].items():
        prefix = f"module_list.{block.removeprefix('blocks_')}."
        for name in ("global_scale", "global_offset"):
            flat[prefix + name] = params[name][None]
        for theirs, ours in (("subnet.0", "hidden"), ("subnet.2", "out")):
            flat[f"{prefix}{theirs}.weight"] = params["net"][ours]["kernel"].T
            flat[f"{prefix}{theirs}.bias"] = params["net"][ours]["bias"]
        order = variables["buffers"][f"scale{scale}"][block]["permutation"]
        flat[prefix + "w_perm"] = permutation(order)
        flat[prefix + "w_perm_inv"] = permutation(np.argsort(order))
    return flat


def as_matrix(order):
    return np.eye(len(order), dtype=np.float32)[order]


def as_indices(order):
    return order.astype(np.int64)


@pytest.mark.parametrize("permutation", [as_matrix, as_indices])
def test_round_trip(variables, variance, permutation):
    converted = detector([decoder(variables, scale, permutation) for scale in (0, 1)], variance)
    expected = jax.tree.map(lambda x: (x.shape, x.dtype), variables)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), converted) == expected
    for kind in ("params", "buffers"):
        for group in ("scale0", "scale1"):
            jax.tree.map(
                np.testing.assert_array_equal, converted[kind][group], variables[kind][group]
            )
    norm = converted["buffers"]["snet"]["norm1"]
    np.testing.assert_array_equal(norm["var"], variance["dncnn.4.running_var"])


def test_dense_matrices_stay_matrices(variables, variance):
    def reflection(order):  # its own inverse
        return np.eye(len(order)) - 2 / len(order)

    converted = detector([decoder(variables, 0, reflection)], variance)
    assert converted["buffers"]["scale0"]["blocks_1"]["permutation"].shape == (6, 6)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dncnn.4.bias", None, "no tensor 'dncnn.4.bias'"),
        ("dncnn.4.running_var", None, "no tensor 'dncnn.4.running_var'"),
        ("last_layer.weight", np.zeros((3, 64, 3, 3)), r"\(3, 64, 3, 3\), needed \(2, 64, 3, 3\)"),
        ("dncnn.9.weight", np.zeros(64), "unknown tensors: 'dncnn.9.weight'"),
    ],
)
def test_what_does_not_fit_is_named(variance, key, value, message):
    variance[key] = value
    broken = {name: tensor for name, tensor in variance.items() if tensor is not None}
    with pytest.raises(UserError, match=message):
        detector([], broken)
