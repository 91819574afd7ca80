"""What U-Flow's flows need of maps, and how half of a latent goes up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.flows.u_shape import UShapedFlow, gathered, rising, spread
from flowad_jax.methods import uflow
from flowad_jax.types import Batch


def test_four_channels_become_a_square():
    x = np.arange(2 * 3 * 8).reshape(1, 2, 3, 8)
    up = np.asarray(spread(jnp.asarray(x)))
    assert up.shape == (1, 4, 6, 2)
    np.testing.assert_array_equal(up[0, 2:4, 4:6, 1].ravel(), x[0, 1, 2, 4:])
    np.testing.assert_array_equal(gathered(jnp.asarray(up)), x)


@pytest.mark.parametrize(("channels", "up"), [(3, 0), (8, 4), (17, 8), (112, 56), (320, 160)])
def test_half_of_the_channels_go_up_as_a_multiple_of_four(channels, up):
    assert rising(channels) == up


def test_an_inner_latent_is_what_did_not_go_up():
    maps = (jnp.ones((2, 4, 4, 3)), jnp.ones((2, 2, 2, 16)))
    flow = UShapedFlow((3, 16), 1)
    (fine, coarse), _ = flow.apply(flow.init(jax.random.key(0), maps), maps)
    assert (fine.shape, coarse.shape) == ((2, 4, 4, 5), (2, 2, 2, 8))


def test_maps_that_do_not_halve_are_refused_with_a_way_out():
    batch = Batch((np.ones((1, 7, 8, 16)), np.ones((1, 4, 4, 16))))
    message = r"7 x 8, 4 x 4 positions: set data.image_size to a multiple"
    with pytest.raises(UserError, match=message):
        uflow.build().init(jax.random.key(0), batch)


def test_the_layer_norm_can_be_left_out():
    batch = Batch((np.ones((1, 4, 4, 16), np.float32), np.ones((1, 2, 2, 16), np.float32)))
    for layer_norm in (True, False):
        method = uflow.build(1, layer_norm=layer_norm)
        shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
        assert ("norm" in shapes["params"]) == layer_norm
        (phase,) = method.phases(
            jax.tree.map(jnp.zeros_like, shapes["buffers"]),
            batch._replace(weight=np.ones(1)),
            jax.random.key(0),
        )
        assert set(phase.param_groups) == set(shapes["params"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"method\.steps=0"),
        ({"ratio": 0.0}, r"method\.ratio=0\.0"),
        ({"permutation": "x"}, r"method\.permutation"),
        ({"clamp_kind": "x"}, r"method\.clamp_kind"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        uflow.build(**options)
