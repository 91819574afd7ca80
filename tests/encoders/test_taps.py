"""Which maps a config takes, and how they are pooled: by hand, by plain loops and by PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.encoders import architecture, load
from flowad_jax.encoders.taps import choose_taps, pooled
from flowad_jax.errors import UserError
from flowad_jax.ops.arrays import resize_bilinear
from tests.encoders import maps

TINY = "resnet.resnet_tiny"
SIZES = [(1, 1), (2, 1), (3, 5), (4, 4), (7, 6)]


@pytest.mark.parametrize("taps", [(1, 0), (1, 1), (0, 4), (-1,), (), (1.0,), ("1",), (True,), 7])
def test_wrong_taps_are_named(taps):
    with pytest.raises(UserError, match=r"taps .* of encoder 'resnet.resnet_tiny'.* 0 to 3"):
        load.load(TINY, "random", taps=taps)


@pytest.mark.parametrize(
    ("name", "strides", "taps"),
    [
        ("resnet.wide_resnet50_2", (4, 8, 16), (0, 1, 2)),
        ("resnet.wide_resnet50_2", (8, 16, 32), (1, 2, 3)),
        ("mobilenet_v3.mobilenet_v3_large", (8, 16, 32), (5, 11, 14)),
        ("mobilenet_v3.mobilenet_v3_small", (8, 16, 32), (2, 7, 10)),
        ("efficientnet_lite.efficientnet_lite0", (4, 8, 16), (1, 2, 4)),
        ("efficientnet_lite.efficientnet_lite0", (8, 16, 32), (2, 4, 6)),
        ("efficientnet_lite.efficientnet_lite0", [2, 32], (0, 6)),
        ("efficientnet_lite.efficientnet_lite0", 16, (4,)),
    ],
)
def test_a_stride_is_its_deepest_map(name, strides, taps):
    assert choose_taps(architecture.find(name).spec, None, strides) == taps


def test_taps_win_over_strides():
    assert load.load(TINY, "random", strides=(4, 16)).taps == (0, 2)
    assert load.load(TINY, "random", taps=(1,), strides=(4, 16)).taps == (1,)


@pytest.mark.parametrize(
    "strides", [(2, 8), (8, 4), (8, 8), (), (8.0,), ("8",), "8", (True,), 5, None, (None,)]
)
def test_wrong_strides_are_named_with_a_way_out(strides):
    message = r"encoder\.strides .*'resnet.resnet_tiny' has .* 4, 8, 16, 32: .*encoder\.taps"
    with pytest.raises(UserError, match=message) as info:
        load.load(TINY, "random", strides=strides)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("name", "taps"), [("cait.cait_tiny", "0, 2, 3"), ("vit.vit_base_patch16_224", "2, 6, 10")]
)
def test_where_all_strides_are_one_the_message_proposes_taps(name, taps):
    spec = architecture.find(name).spec
    message = rf"encoder\.strides .* of stride 16 only: set encoder\.taps=\({taps}\)$"
    with pytest.raises(UserError, match=message):
        choose_taps(spec, None, (8, 16, 32))
    assert choose_taps(spec, None, (16,)) == (len(spec.channels) - 1,)


def pool_one(pool, tap):
    return np.asarray(pooled(lambda _, image: (image,), pool)({}, tap)[0])


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
@pytest.mark.parametrize("size", SIZES)
def test_pools_agree_with_torch(size):
    torch = pytest.importorskip("torch")
    tap = np.random.default_rng(4).normal(-2, 1, (2, *size, 3))
    theirs = torch.from_numpy(tap.transpose(0, 3, 1, 2))
    average = torch.nn.AvgPool2d(3, stride=2, padding=1)(theirs)
    maximum = torch.nn.MaxPool2d(3, stride=2, padding=1)(theirs)
    with jax.enable_x64(True):
        for pool, expected in (("avg", average), ("max", maximum)):
            ours = pool_one(pool, jnp.asarray(tap)).transpose(0, 3, 1, 2)
            np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-14)


def test_a_loaded_encoder_pools_its_taps():
    image = maps.image(35, 50)
    plain = load.load(TINY, "random", taps=(0,))
    taps = jax.jit(plain.apply)(plain.variables, image)
    for pool in ("avg", "max"):
        encoder = load.load(TINY, "random", taps=(0,), pool=pool)
        assert encoder.source == plain.source
        ours = jax.jit(encoder.apply)(encoder.variables, image)
        maps.assert_close(ours, [by_hand(pool, np.asarray(tap)) for tap in taps])


def test_a_pyramid_is_the_network_on_smaller_images():
    """Sizes are rounded down; the largest comes first; images are resized as PyTorch does."""
    plain, tall = (
        load.load(TINY, "random", strides=(4, 8), padding="zeros", pyramid=count)
        for count in (1, 3)
    )
    image = np.random.default_rng(0).normal(size=(2, 34, 50, 3)).astype(np.float32)
    found = jax.jit(tall.apply)(tall.variables, image)
    assert len(found) == 6
    for level, size in enumerate([(34, 50), (17, 25), (8, 12)]):
        smaller = image if not level else resize_bilinear(jnp.asarray(image), size)
        expected = jax.jit(plain.apply)(plain.variables, smaller)
        for ours, wanted in zip(found[2 * level :], expected, strict=False):
            np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)


def test_the_sizes_of_a_transformers_pyramid_are_multiples_of_its_patch():
    encoder = load.load("vit.dinov2_tiny", "random", taps=(0,), pyramid=2)
    image = jnp.zeros((1, 70, 56, 3))
    shapes = jax.eval_shape(encoder.apply, encoder.variables, image)
    assert [x.shape[1:3] for x in shapes] == [(5, 4), (2, 2)]


@pytest.mark.parametrize("count", [0, -1, 1.5, "2"])
def test_a_wrong_pyramid_is_named(count):
    with pytest.raises(UserError, match=r"encoder\.pyramid=.*a whole number from 1"):
        load.load(TINY, "random", pyramid=count)


def test_a_pyramid_without_a_top_is_refused():
    encoder = load.load(TINY, "random", padding="zeros", pyramid=5)
    with pytest.raises(UserError, match=r"encoder\.pyramid=5: too many for images of 16 x 12 px"):
        encoder.apply(encoder.variables, jnp.zeros((1, 16, 12, 3)))
