"""What `convert` is asked for: versions of operators, and what it refuses in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flowad_jax.errors import UserError
from flowad_jax.onnx.convert import convert
from tests.onnx import backends
from tests.onnx.test_rules import CHAINS, KERNEL, X


@pytest.mark.parametrize("opset", [18, 21])
def test_the_version_of_the_operators_is_that_asked_for(opset):
    model = convert(CHAINS["centred channels"], backends.shapes([X], True), "abc", opset=opset)
    assert [x.version for x in model.opset_import] == [opset]
    assert len(backends.by_onnxruntime(model, {"in0": X})) == 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: (jnp.linalg.svd(x)[1],), "'svd'"),
        (lambda x: (lax.while_loop(lambda y: y.sum() < 9, lambda y: y + 1, x),), "'while'"),
        (lambda x: (lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x),), "'cond'"),
        (lambda x: (x[:, (x[0, 0, 0] > 0).astype(int)],), "constant positions"),
        (lambda x: (lax.conv_transpose(x, KERNEL, (2, 2), "SAME"),), "'conv_general_dilated'"),
        (lambda x: (lax.sort_key_val(x, x)[1],), "'sort'"),
        (lambda x: (lax.fori_loop(0, 1000, lambda i, y: jnp.sin(y), x),), "1000 dependent steps"),
    ],
)
def test_what_has_no_rule_is_named(function, message):
    with pytest.raises(UserError, match=message):
        backends.converted(function, [X])


def test_a_size_that_is_computed_with_is_named():
    with pytest.raises(UserError, match="'dim_as_value'"):
        backends.converted(lambda x: (x.mean(0),), [X], dynamic=True)
    with pytest.raises(UserError, match="only multiples of the batch"):
        backends.converted(lambda x: (x[1:],), [X], dynamic=True)


def test_wrong_requests_are_named():
    shape = {"x": jax.ShapeDtypeStruct((2, 3), np.float32)}
    with pytest.raises(UserError, match="opset=11"):
        convert(lambda x: (x,), shape, ["y"], opset=11)
    with pytest.raises(UserError, match="2 names for 1 outputs"):
        convert(lambda x: (x,), shape, ["y", "z"])
    sizes = jax.export.symbolic_shape("B, H")
    with pytest.raises(UserError, match="only the batch"):
        convert(lambda x: (x,), {"x": jax.ShapeDtypeStruct(sizes, np.float32)}, ["y"])
