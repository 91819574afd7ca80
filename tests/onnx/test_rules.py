"""Every rule of the converter against JAX, on shapes whose axes cannot be mistaken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.onnx import backends


def array(*shape, seed=0, kind=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(kind)


X = array(2, 5, 7, 6)  # a map; all axes have another length
ROWS = array(2, 5, 4, seed=1)
WEIGHTS = array(6, 3, seed=2)
KERNEL = array(3, 2, 6, 4, seed=3)
SIX = array(1, 2, 6, 6, seed=4)
ORDER = np.array([4, 2, 0, 5, 1, 3])
NHWC = ("NHWC", "HWIO", "NHWC")


def conv(x, kernel=KERNEL, strides=(1, 1), padding="SAME", **options):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NHWC, **options)


def window(kind, size=(3, 3), strides=(2, 2), pads=((1, 1), (1, 0))):
    start, op = {"max": (-jnp.inf, lax.max), "sum": (0.0, lax.add)}[kind]
    pads = ((0, 0), *pads, (0, 0))
    return lambda x: lax.reduce_window(x, start, op, (1, *size, 1), (1, *strides, 1), pads)


def six(x):
    """A map that lies in memory as convolutions have it, with six channels."""
    return conv(x, SIX)


def normed(x):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def loop(x):
    def step(carry, row):
        return carry * 0.5 + row, carry.sum(-1)

    carry, rows = lax.scan(step, jnp.zeros_like(x[:, 0]), jnp.moveaxis(x, 1, 0), reverse=True)
    return carry, rows.T


def in_place(x):
    return lax.fori_loop(
        0, 2, lambda i, y: lax.dynamic_update_slice(y, y[:, :2] * i, (0, 2 * i, 0, 0)), x
    )


FUNCTIONS = {
    "arithmetic": lambda x: (x + 1, 2 - x, x * 3, x / 7, 1 / (2 + x * x), -x, x**3, abs(x) ** 0.3),
    "exponentials": lambda x: (jnp.exp(x), jnp.log(x * x), jnp.log1p(x * x), jnp.expm1(x)),
    "near 0": lambda x: (jnp.log1p(1e-6 * x), jnp.expm1(1e-6 * x), jnp.exp2(x)),
    "bounded": lambda x: (jnp.tanh(x), jnp.arctan(x), lax.erf(x), lax.erfc(x), jax.nn.sigmoid(x)),
    "angles": lambda x: (jnp.sin(x), jnp.cos(x), jnp.tan(0.1 * x)),
    "roots": lambda x: (jnp.sqrt(abs(x)), lax.rsqrt(1 + x * x), jnp.sign(x)),
    "limits": lambda x: (jnp.clip(x, -0.5, 0.25), jnp.maximum(x, 0), jax.nn.relu6(9 * x)),
    "one limit": lambda x: (
        jnp.maximum(x, 0.1),
        jnp.minimum(x, 0.1),
        lax.clamp(-x, 0.3 * x, x + 9),
    ),
    "activations": lambda x: (
        jax.nn.gelu(x, approximate=False),
        jax.nn.silu(x),
        jax.nn.softplus(x),
    ),
    "hard activations": lambda x: (jax.nn.hard_swish(x), jax.nn.hard_sigmoid(x), jax.nn.relu(x)),
    "rounded": lambda x: (jnp.floor(9 * x), jnp.ceil(9 * x), jnp.round(9 * x), (9 * x).astype(int)),
    "compared": lambda x: (x > 0, x >= 0.1, x < 0, x <= -0.1, x == x[:, :1], x != x[:, :1]),
    "logic": lambda x: (
        (x > 0) & (x < 1),
        (x > 1) | (x < -1),
        ~(x > 0),
        jnp.isfinite(1 / jnp.floor(abs(x))),
    ),
    "chosen": lambda x: (jnp.where(x > 0, x, -3.0), jnp.where(jnp.arange(6) > 2, x, x * 2)),
    "integers": lambda x: ((9 * x).astype(int) // 4, (9 * x).astype(int) % 4, lax.rem(9 * x, 4.0)),
    "half precision": lambda x: (
        x.astype(jnp.bfloat16).astype(jnp.float32),
        lax.reduce_precision(x, 8, 7),
    ),
    "sums": lambda x: (x.sum(1), x.sum((1, 2)), x.mean(-1), x.max((1, 3)), x.min(2), x.prod(3)),
    "normalised": lambda x: (jax.nn.standardize(x), jax.nn.softmax(x), jax.nn.softmax(x, axis=1)),
    "extremes": lambda x: (x.argmax(-1), x.argmin(1), jnp.sort(x, axis=2), jnp.cumsum(x, axis=1)),
    "largest": lambda x: lax.top_k(x, 2),
    "slices": lambda x: (x[:, 1:4], x[..., ::2], x[:, 1, :, 3], x[:, ::2, 1::3], x[..., -2:]),
    "turned": lambda x: (
        x[:, ::-1],
        x[:, :, ::-1, ::-1],
        x.transpose(0, 3, 1, 2),
        x.swapaxes(1, 3),
    ),
    "taken": lambda x: (x[..., ORDER], x[:, [3, 0, 0]], jnp.take(x, np.array([[0, 2]]), axis=2)),
    "shaped": lambda x: (
        x.reshape(-1, 35, 6),
        x.reshape(-1, 5, 14, 3),
        x[:, None],
        x.reshape(-1, 210),
    ),
    "joined": lambda x: (
        jnp.concatenate([x, x[..., :2]], -1),
        jnp.stack([x, -x], 1),
        jnp.tile(x, (1, 2, 1, 1)),
    ),
    "joined with a constant": lambda x: (
        jnp.concatenate([x, jnp.broadcast_to(jnp.arange(2.0), (*x.shape[:3], 2))], -1),
    ),
    "parted": lambda x: (*jnp.split(x, [1, 4], axis=-1), *jnp.unstack(x, axis=2)[:2]),
    "padded": lambda x: (
        jnp.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)), constant_values=2),
        lax.pad(x, 0.0, ((0, 0, 0), (-1, 2, 0), (0, -2, 0), (0, 0, 0))),
        jnp.pad(x, ((0, 0), (2, 1), (0, 0), (0, 0)), mode="reflect"),
    ),
    "convolutions": lambda x: (
        conv(x),
        conv(x, strides=(2, 3), padding="VALID"),
        conv(x, KERNEL[:1]),
    ),
    "grouped": lambda x: (
        conv(x, KERNEL[:, :, :2, :3], feature_group_count=3),
        conv(x, KERNEL[:, :, :1, :].repeat(3, -1)[..., :6], feature_group_count=6),
        conv(x, rhs_dilation=(2, 1)),
    ),
    "windows": lambda x: (
        window("max")(x),
        window("sum")(x),
        window("max", (2, 1), (1, 1), ((0, 1), (0, 0)))(x),
    ),
    "channels": lambda x: (
        x @ WEIGHTS,
        jnp.einsum("bhwc,cd->dbhw", x, WEIGHTS),
        conv(x) @ KERNEL[0, 0].T,
    ),
    "axes": lambda x: (
        jnp.einsum("Hh,Ww,bhwc->bHWc", KERNEL[0].T.reshape(-1, 1)[:5].T, array(9, 7), conv(x)),
        jnp.einsum("bhwc,ho->bowc", x, array(5, 8)),
    ),
    "attention": lambda x: (
        jnp.einsum("bqhd,bkhd->bhqk", x, x + 1),
        jnp.einsum(
            "bhqk,bkhd->bqhd", jax.nn.softmax(x.transpose(0, 2, 1, 3)), x.transpose(0, 3, 2, 1)
        ),
        jnp.einsum("bijk,bijl->bkl", x, x[..., :2]),
    ),
    "mapped": lambda x: (lax.map(lambda image: (image @ WEIGHTS).sum(0), x),),
    "loop": loop,
    "updated": lambda x: (in_place(x),),
    "twice": lambda x: (x + 1, x + 1, x),
    "without the input": lambda x: (x, jnp.broadcast_to(jnp.arange(3.0), (x.shape[0], 3))),
}
# Chains that are simplified; weights have another number for every channel.
CHANNEL = array(4, seed=5)
CHAINS = {
    "norm behind a convolution": lambda x: ((conv(x) - CHANNEL) * (1 + CHANNEL) / 3 + CHANNEL,),
    "scale before a padded one": lambda x: (conv(six(x) * array(6, seed=6) * 0.5),),
    "offset before a padded one": lambda x: (conv(six(x) + array(6, seed=6)),),
    "offset before a bare one": lambda x: (conv(six(x) + array(6, seed=6), padding="VALID"),),
    "scale in groups": lambda x: (
        CHANNEL[:3] * conv(six(x) * array(6, seed=6), KERNEL[:, :, :2, :3], feature_group_count=3)
        + 1,
    ),
    "affine before rows": lambda x: (
        (x.reshape(-1, 35, 6) * array(6) + array(6, seed=2)) @ WEIGHTS,
    ),
    "affine before a product of maps": lambda x: (
        (conv(x) * CHANNEL + CHANNEL[::-1]) @ KERNEL[0, 0].T * array(6),
    ),
    "another constant for every place": lambda x: ((conv(x) + array(5, 7, 4)) * CHANNEL,),
    "orders": lambda x: (
        x[..., ORDER][..., ORDER[::-1]],
        six(x)[..., ORDER] @ WEIGHTS,
        conv(x)[..., [2, 0]],
    ),
    "an order that repeats": lambda x: (
        x[..., [0, 0, 3, 3, 3, 1]] @ WEIGHTS,
        conv(x)[..., [1, 1, 3]],
    ),
    "a constant beside rows": lambda x: (
        jnp.concatenate([x, jnp.broadcast_to(array(5, 7, 2), (*x.shape[:3], 2))], -1).reshape(
            -1, 35, 8
        )
        @ array(8, 3),
    ),
    "a constant beside maps": lambda x: (
        jnp.concatenate([jnp.broadcast_to(array(5, 7, 2), (*x.shape[:3], 2)), conv(x)], -1)
        @ array(6, 3),
    ),
    "centred channels": lambda x: (
        normed(conv(x) + CHANNEL),
        normed(conv(x * 2) + array(5, 7, 4)),
        normed(x.reshape(-1, 35, 6) @ WEIGHTS + CHANNEL[:3]),
    ),
    "a pad before a convolution": lambda x: (
        conv(jnp.pad(six(x), ((0, 0), (1, 2), (0, 1), (0, 0))), KERNEL, padding=((1, 0), (0, 0))),
        conv(jnp.pad(six(x), ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=1.0), KERNEL),
    ),
    "a result that is used twice": lambda x: (
        (y := conv(x)),
        y * CHANNEL,
        (y + 1) @ KERNEL[0, 0].T,
    ),
    "a softmax without its maximum": lambda x: (
        jnp.exp(x - 1) / jnp.exp(x - 1).sum(-1, keepdims=True),
    ),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("name", [*FUNCTIONS, *CHAINS])
def test_a_graph_computes_what_jax_computes(name, dynamic):
    if name == "updated" and dynamic:
        pytest.skip("JAX compares positions with the unknown size")
    backends.assert_same((FUNCTIONS | CHAINS)[name], X, dynamic=dynamic)


@pytest.mark.parametrize("name", [*CHAINS, "attention", "windows", "axes", "sums"])
def test_openvino_agrees(name):
    if backends.by_openvino not in backends.installed():
        pytest.skip("openvino is not installed")
    backends.assert_same((FUNCTIONS | CHAINS)[name], X, run=(backends.by_openvino,))


def test_pixels_and_places_are_integers():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
    place = np.array([[0, 1], [3, 2]], np.int32)

    def function(pixels, place):
        inside = jnp.arange(6) >= place[:, :1]
        return pixels / 255.0, jnp.where(inside[:, None, :, None], pixels, 0), place + 1

    for dynamic in (False, True):
        backends.assert_same(function, pixels, place, dynamic=dynamic)


FOLDED = {
    "norm behind a convolution": {"Conv": 1},
    "scale before a padded one": {"Conv": 2},
    "offset before a bare one": {"Conv": 2},
    "scale in groups": {"Conv": 2},
    "affine before a product of maps": {"Conv": 2},
    "a pad before a convolution": {"Conv": 3, "Pad": 1},
    "centred channels": {"Sub": 0},
    "orders": {"Gather": 1},
    "a constant beside maps": {"Concat": 0},
}


@pytest.mark.parametrize("name", FOLDED)
def test_a_chain_becomes_few_nodes(name):
    nodes = [node.op_type for node in backends.converted(CHAINS[name], [X]).graph.node]
    counts = {op: nodes.count(op) for op in FOLDED[name]}
    assert counts == FOLDED[name], nodes
    if [*FOLDED[name]] == ["Conv"]:
        assert not {"Mul", "Add", "Sub", "Div"} & {*nodes}


def test_a_chain_of_maps_is_transposed_at_its_ends_only():
    def function(x):
        y = jax.nn.relu(conv(x) * CHANNEL)
        first, second = jnp.split(y, 2, axis=-1)
        y = jnp.concatenate([first, second * jnp.exp(first)], -1)[:, ::2]
        return (y @ KERNEL[0, 0].T - y.mean(axis=(1, 2), keepdims=True).sum(),)

    nodes = [node.op_type for node in backends.converted(function, [X]).graph.node]
    assert nodes.count("Transpose") == 2


def test_the_same_function_gives_the_same_bytes():
    one, two = (backends.converted(FUNCTIONS["convolutions"], [X], True) for _ in range(2))
    assert one.SerializeToString() == two.SerializeToString()
    (given,) = one.graph.input
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["B", 5, 7, 6]
    assert [x.name for x in one.graph.output] == ["out0", "out1", "out2"]
