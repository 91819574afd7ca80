import jax
import numpy as np
import pytest

from flowad_jax import convolution

SIZES = [(8, 8), (7, 10), (5, 3)]


def tensors(size, channels, groups, kernel, outputs, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, *size, channels), np.float32)
    weights = rng.standard_normal((kernel, kernel, channels // groups, outputs), np.float32)
    return x, weights


def by_definition(x, kernel, strides, pads):
    """The sum over window and channels in float64, output position by output position."""
    x = np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)))
    kh, kw, width, outputs = kernel.shape
    groups = x.shape[-1] // width
    kernel = kernel.reshape(kh, kw, width, groups, outputs // groups)
    rows = range(0, x.shape[1] - kh + 1, strides[0])
    columns = range(0, x.shape[2] - kw + 1, strides[1])
    out = np.empty((x.shape[0], len(rows), len(columns), outputs))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            window = x[:, top : top + kh, left : left + kw].reshape(len(x), kh, kw, groups, width)
            out[:, i, j] = np.einsum("bhwgi,hwigo->bgo", window, kernel).reshape(len(x), outputs)
    return out


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("form", "channels", "groups", "kernel", "outputs"),
    [
        ("shifted", 6, 6, 3, 6),
        ("shifted", 4, 4, 5, 4),
        ("merged", 64, 16, 3, 64),
        ("merged", 24, 6, 3, 12),
        ("merged", 96, 3, 3, 96),
        ("pointwise", 5, 1, 1, 7),
        ("overhanging", 5, 1, 3, 7),
        ("direct", 5, 1, 3, 7),
        ("direct", 8, 4, 3, 8),
    ],
)
def test_every_form_is_the_definition(form, channels, groups, kernel, outputs, size, stride):
    x, weights = tensors(size, channels, groups, kernel, outputs)
    pads = ((kernel // 2, kernel // 2), (kernel // 2, kernel // 2))
    result = getattr(convolution, form)(x, weights, (stride, stride), pads)
    expected = by_definition(x, weights, (stride, stride), pads)
    np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("size", [(8, 8), (9, 6)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((0, 1), (2, 3))])
@pytest.mark.parametrize(
    ("channels", "groups", "kernel", "outputs"),
    [(6, 6, 5, 6), (64, 16, 3, 64), (96, 3, 3, 96), (8, 8, 3, 16), (8, 1, 3, 4), (8, 1, 1, 4)],
)
def test_the_chosen_form_agrees_with_the_library(channels, groups, kernel, outputs, size, padding):
    x, weights = tensors(size, channels, groups, kernel, outputs)
    expected = jax.lax.conv_general_dilated(
        x,
        weights,
        (2, 2),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    result = jax.jit(convolution.convolve, static_argnums=(2, 3))(x, weights, (2, 2), padding)
    np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("channels", "groups"), [(6, 6), (16, 4)])
@pytest.mark.parametrize(("platform", "grouped"), [("cpu", False), ("cuda", True), ("tpu", True)])
def test_only_accelerators_see_grouped_convolutions(platform, grouped, channels, groups):
    x, weights = tensors((8, 8), channels, groups, 3, channels)
    program = jax.jit(convolution.convolve, static_argnums=(2, 3))
    text = program.trace(x, weights, (1, 1), "SAME").lower(lowering_platforms=(platform,)).as_text()
    assert (f"feature_group_count = {groups}" in text) is grouped


def test_the_layer_has_no_bias_and_the_kernel_of_linen():
    layer = convolution.Conv(12, (3, 3), strides=2, padding=1, feature_group_count=4)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 9, 9, 8), "f4"))
    assert {k: v.shape for k, v in shapes["params"].items()} == {"kernel": (3, 3, 2, 12)}
