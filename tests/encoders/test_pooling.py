"""Pooled maps against numbers worked out by hand, against plain loops and against PyTorch."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.encoders import load
from flowad_jax.encoders.pooling import POOLS, pooled
from flowad_jax.encoders.taps import choose_taps
from flowad_jax.errors import UserError
from tests.encoders import maps

TINY = "efficientnet_lite.efficientnet_lite_tiny"
SIZES = [(1, 1), (2, 1), (3, 5), (4, 4), (7, 6)]
COUNT = np.arange(1.0, 17.0).reshape(1, 4, 4, 1)


def pool_one(pool, tap):
    (result,) = pooled(lambda _, image: (image,), pool)({}, tap)
    return np.asarray(result)


def by_hand(pool, tap):
    """Window by window in float64, with the rule for the border spelt out."""
    batch, height, width, channels = tap.shape
    border = 0.0 if pool == "avg" else -np.inf
    padded = np.full((batch, height + 2, width + 2, channels), border)
    padded[:, 1:-1, 1:-1] = tap
    rows, columns = (height - 1) // 2 + 1, (width - 1) // 2 + 1
    result = np.empty((batch, rows, columns, channels))
    for y in range(rows):
        for x in range(columns):
            window = padded[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
            result[:, y, x] = window.sum((1, 2)) / 9 if pool == "avg" else window.max((1, 2))
    return result


@pytest.mark.parametrize(
    ("pool", "tap", "expected"),
    [
        ("avg", COUNT, [[14 / 9, 30 / 9], [57 / 9, 11]]),
        ("max", COUNT, [[6, 8], [14, 16]]),
        ("max", -COUNT, [[-1, -2], [-5, -6]]),
    ],
)
def test_worked_example(pool, tap, expected):
    np.testing.assert_allclose(pool_one(pool, tap)[0, :, :, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pool", ["avg", "max"])
def test_any_size_and_precision(pool, size, dtype):
    tap = np.random.default_rng(3).normal(-2, 1, (2, *size, 3)).astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        ours = pool_one(pool, jnp.asarray(tap))
    assert ours.dtype == dtype
    rounding = 9 * np.finfo(dtype).eps  # of nine additions of numbers about 1
    np.testing.assert_allclose(ours, by_hand(pool, tap), rtol=rounding, atol=rounding)


@pytest.mark.live
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("size", SIZES)
def test_pools_agree_with_torch(size):
    import torch

    tap = np.random.default_rng(4).normal(-2, 1, (2, *size, 3))
    theirs = torch.from_numpy(tap.transpose(0, 3, 1, 2))
    average = torch.nn.AvgPool2d(3, stride=2, padding=1)(theirs)
    maximum = torch.nn.MaxPool2d(3, stride=2, padding=1)(theirs)
    with jax.enable_x64(True):
        for pool, expected in (("avg", average), ("max", maximum)):
            ours = pool_one(pool, jnp.asarray(tap)).transpose(0, 3, 1, 2)
            np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-14)


@pytest.mark.parametrize("name", maps.NAMES)
def test_every_variant_at_the_strides_and_pools_of_a_config(name):
    family = maps.FAMILIES[name.split(".")[0]]
    variant = name.split(".")[1]
    spec = family.SPECS[variant]
    taps = choose_taps(spec, None, (4, 8, 16))
    module = getattr(family, variant)(taps=taps)
    image = jax.ShapeDtypeStruct((2, 101, 66, 3), np.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    sizes = [(-(-101 // stride), -(-66 // stride)) for stride in (4, 8, 16)]
    for pool in POOLS:
        halved = [((h - 1) // 2 + 1, (w - 1) // 2 + 1) for h, w in sizes]
        expected = sizes if pool == "none" else halved
        shapes = jax.eval_shape(pooled(module.apply, pool), variables, image)
        assert [tap.shape[1:3] for tap in shapes] == expected
        assert [tap.shape[3] for tap in shapes] == [spec.channels[tap] for tap in taps]


def test_a_loaded_encoder_pools_its_taps():
    image = maps.image(35, 50)
    plain = load.load(TINY, "random", taps=(0, 1))
    taps = jax.jit(plain.apply)(plain.variables, image)
    for pool in ("avg", "max"):
        encoder = load.load(TINY, "random", taps=(0, 1), pool=pool)
        assert encoder.source == plain.source
        ours = jax.jit(encoder.apply)(encoder.variables, image)
        maps.assert_close(ours, [by_hand(pool, np.asarray(tap)) for tap in taps])


def test_an_unknown_pool_is_named_before_the_weights_are_read():
    with pytest.raises(UserError, match=r"encoder\.pool='mean' is unknown: choices are avg, max"):
        load.load(TINY, "nowhere.pth", pool="mean")
    with pytest.raises(UserError, match="did you mean 'avg'"):
        load.load(TINY, "random", pool="avgs")
