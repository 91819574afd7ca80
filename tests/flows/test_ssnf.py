"""The flow of SSNF: tensors of the reference, first weights, layouts, dropout, conversion."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.flows import ResidualNet, ssnf_flow
from flowad_jax.flows.residual_net import SelfAttention, sequence_code
from flowad_jax.weights.dialects import ssnf
from tests import golden

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(name="stored", scope="module")
def _stored():
    return golden.load("ssnf")


def apply(module, *args, dropout=None, **options):
    """`module.apply` as one program; NumPy arrays."""
    rngs = None if dropout is None else {"dropout": dropout}
    run = jax.jit(partial(module.apply, **options))
    return jax.device_get(run(*args, rngs=rngs))


def draw(module, channels=4, images=1):
    """Random variables of a module, and maps for it, as NumPy arrays."""
    x = np.random.default_rng(1).normal(size=(images, 2, 3, channels)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    return jax.device_get(variables), x


def test_reference(stored):
    variables = ssnf.flow(golden.state_dict(stored))
    x, expected = (np.moveaxis(stored[name], 1, -1) for name in ("x_nchw", "z"))
    flow = ssnf_flow(x.shape[-1], 2 * int(stored["coupling"]), 16, int(stored["num_heads"]))
    z, log_det = apply(flow, variables, x)
    np.testing.assert_allclose(z, expected, **TOLERANCE)
    np.testing.assert_allclose(log_det, stored["log_det"], **TOLERANCE)
    negative = 0.5 * np.sum(np.square(z) + np.log(2 * np.pi), axis=(1, 2, 3)) - log_det
    np.testing.assert_allclose(negative, stored["neg_log_likelihood"], rtol=1e-5)
    back, log_det_back = apply(flow, variables, expected, method="inverse")
    np.testing.assert_allclose(back, np.moveaxis(stored["x_inv"], 1, -1), **TOLERANCE)
    np.testing.assert_allclose(log_det_back, -stored["log_det"], **TOLERANCE)


def test_parameter_counts_are_the_published_ones():
    """Ten blocks on CaiT-M48's 768 channels have 3,470,080 trainable parameters."""
    maps = jax.ShapeDtypeStruct((1, 28, 28, 768), jnp.float32)
    shapes = jax.eval_shape(ssnf_flow(768).init, jax.random.key(0), maps)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 3_470_080
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["buffers"])) == 10 * 768


def test_initial_weights_follow_pytorch():
    net = draw(ResidualNet(64, 32), 48)[0]["params"]
    for layer, fan_in in (("reduce", 48), ("conv", 9 * 32), ("expand", 32)):
        for leaf in net[layer].values():
            assert 0.8 * fan_in**-0.5 < np.abs(leaf).max() <= fan_in**-0.5
    direction, scale = (net["attention"][name] for name in ("direction", "scale"))
    assert 0.9 * 32**-0.5 < np.abs(direction).max() <= 32**-0.5
    np.testing.assert_allclose(scale, np.linalg.norm(direction, axis=0), rtol=1e-6)


def test_directions_have_no_length():
    attention = SelfAttention(heads=2)
    variables, x = draw(attention)
    params = variables["params"]
    longer = {"params": {**params, "direction": 3.0 * params["direction"]}}
    out = apply(attention, variables, x)
    np.testing.assert_allclose(apply(attention, longer, x), out, **TOLERANCE)


def test_sequence_code():
    code = sequence_code(7, 5)
    rates = 10_000.0 ** -np.array([0, 0.5, 1])
    expected = [*np.sin(3 * rates), *np.cos(3 * rates), 0]
    np.testing.assert_allclose(code[3], expected, atol=1e-15)
    np.testing.assert_allclose(sequence_code(2, 3)[2], [np.sin(2), np.cos(2)], atol=1e-15)


def test_layouts_have_their_parts_in_their_order():
    names, nets = {"conv": "conv", "attn": "attention"}, {}
    maps = jax.ShapeDtypeStruct((1, 2, 3, 5), jnp.float32)
    for layout in ("conv", "attn", "conv+attn", "attn+conv"):
        nets[layout] = net = ResidualNet(6, hidden=4, layout=layout)
        parts = set(jax.eval_shape(net.init, jax.random.key(0), maps)["params"])
        assert parts == {"reduce", "expand", *(names[part] for part in layout.split("+"))}
    variables, x = draw(nets["conv+attn"])
    one, other = (apply(nets[name], variables, x) for name in ("conv+attn", "attn+conv"))
    assert np.abs(one - other).max() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "attention"}, "layout='attention': did you mean"),
        ({"layout": ("conv", "attn", "conv")}, "layout names 3 blocks, but there are 2"),
        ({"blocks": 0}, "blocks=0: a flow needs at least 1"),
        ({"heads": 3}, "heads=3: must be a divisor of hidden=128"),
        ({"heads": 0}, "heads=0"),
        ({"drop": 1.0}, "drop=1.0: a probability"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        ssnf_flow(4, **{"blocks": 2, **options})


def test_condition_stands_beside_the_channels():
    net = ResidualNet(6, hidden=4)
    variables, x = draw(net, 5, images=2)
    own = apply(net, variables, x[..., :3], x[..., 3:])
    np.testing.assert_allclose(own, apply(net, variables, x), rtol=1e-6)
    shared = apply(net, variables, x[..., :3], x[:1, ..., 3:])
    np.testing.assert_allclose(shared[0], own[0], rtol=1e-6)
    assert np.abs(shared[1] - own[1]).max() > 1e-4


def test_half_precision_is_near_and_only_within():
    flow, half = (ssnf_flow(4, 1, 8, 2, compute=dtype) for dtype in (None, jnp.bfloat16))
    variables, x = draw(flow)
    (z, log_det), (near, log_det_near) = apply(flow, variables, x), apply(half, variables, x)
    assert near.dtype == log_det_near.dtype == jnp.float32
    assert 0 < np.abs(near - z).max() < 0.01
    np.testing.assert_allclose(log_det_near, log_det, atol=0.02)


def test_dropout_needs_a_key():
    flow = ssnf_flow(4, 1, 8, 2, drop=0.5)
    never = ssnf_flow(4, 1, 8, 2, drop=0.0)
    variables, x = draw(flow)
    keys = [jax.random.key(seed) for seed in (0, 0, 1)]
    without = apply(flow, variables, x)[0]
    np.testing.assert_array_equal(without, apply(never, variables, x, dropout=keys[0])[0])
    first, again, second = (apply(flow, variables, x, dropout=key)[0] for key in keys)
    np.testing.assert_array_equal(first, again)
    for one, other in ((first, without), (second, without), (first, second)):
        assert np.abs(one - other).max() > 1e-3


def test_convolution_drops_whole_channels_of_an_image():
    net = ResidualNet(6, hidden=64, drop=0.25, layout="conv")
    variables, x = draw(net, images=6)
    key = jax.random.key(0)
    _, seen = apply(net, variables, x, dropout=key, capture_intermediates=True)
    ((before,), (after,)) = (seen["intermediates"][name]["__call__"] for name in ("conv", "drop"))
    dropped = np.all(after == 0, axis=(1, 2))
    kept = np.where(dropped[:, None, None], 0, before / 0.75)
    np.testing.assert_allclose(after, kept, rtol=1e-6)
    assert 0.17 < dropped.mean() < 0.33  # 384 draws: three and a half standard deviations
    assert np.any(dropped[0] != dropped[1])


def test_attention_drops_weights_and_keeps_the_mean():
    attention, draws = SelfAttention(heads=2, drop=0.4), 2000
    variables, x = draw(attention)
    keys = jax.random.split(jax.random.key(0), draws)

    @jax.jit
    @partial(jax.vmap, in_axes=(None, None, 0))
    def dropped(variables, x, key):
        return attention.apply(variables, x, rngs={"dropout": key})

    samples = np.asarray(dropped(variables, np.concatenate([x, x]), keys))
    mean, error = samples.mean(0), samples.std(0) / draws**0.5
    expected = apply(attention, variables, x)[0]
    assert np.all(np.abs(mean - expected) < 4.5 * error)
    # Equal images have draws of their own.
    one, other = np.moveaxis((samples - mean) / samples.std(0), 1, 0)
    assert np.abs(np.mean(one * other, axis=0)).max() < 0.1


def test_both_spellings_of_a_checkpoint(stored):
    tensors = golden.state_dict(stored)
    renamed = {
        "flow_model."
        + key.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): value
        for key, value in tensors.items()
    }
    assert not set(renamed) & set(tensors)
    jax.tree.map(np.testing.assert_array_equal, ssnf.flow(renamed), ssnf.flow(tensors))


PROJECTION = "module_list.1.subnet.attn.in_proj."


@pytest.mark.parametrize(
    ("missing", "extra", "message"),
    [
        (PROJECTION + "weight_g", None, "blocks_1 of an SSNF flow has no tensor 'weight_g'"),
        ("module_list.2.subnet.gate2.bias", None, r"no tensor '\S+2\.subnet\.gate2\.bias'"),
        (None, PROJECTION + "bias", "blocks_1 of an SSNF flow has unknown tensors: 'bias'"),
        (None, "module_list.9.subnet.attn.in_proj.weight_g", "unknown blocks: blocks_9"),
        (None, "module_list.0.subnet.gate3.weight", r"unknown tensors: '\S+\.gate3\.weight'"),
        (None, "epoch", "unknown key 'epoch'"),
    ],
)
def test_damaged_checkpoints_are_refused(stored, missing, extra, message):
    tensors = golden.state_dict(stored)
    if missing:
        del tensors[missing]
    if extra:
        tensors[extra] = np.zeros(1)
    with pytest.raises(UserError, match=message) as caught:
        ssnf.flow(tensors)
    assert "\n" not in str(caught.value)
