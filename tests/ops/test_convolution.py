import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from flowad_jax.ops import convolution

SIZES = [(7, 10), (5, 3)]
AROUND = ((1, 1), (1, 1))
FORMS = [
    ("shifted", 4, 4, 5, 4),
    ("merged", 64, 16, 3, 64),
    ("merged", 24, 6, 3, 12),
    ("merged", 96, 3, 3, 96),
    ("pointwise", 5, 1, 1, 7),
    ("overhanging", 5, 1, 3, 7),
    ("trainable", 5, 1, 3, 7),
    ("direct", 5, 1, 3, 7),
    ("direct", 8, 4, 3, 8),
]


def tensors(size, channels, groups, kernel, outputs, seed=0, batch=2):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, *size, channels), np.float32)
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
@pytest.mark.parametrize(("form", "channels", "groups", "kernel", "outputs"), FORMS)
def test_every_form_is_the_definition(form, channels, groups, kernel, outputs, size, stride):
    x, weights = tensors(size, channels, groups, kernel, outputs)
    pads = ((kernel // 2, kernel // 2), (kernel // 2, kernel // 2))
    result = getattr(convolution, form)(x, weights, (stride, stride), pads)
    expected = by_definition(x, weights, (stride, stride), pads)
    np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((0, 1), (2, 3))])
@pytest.mark.parametrize(
    ("channels", "groups", "kernel", "outputs"),
    [(6, 6, 5, 6), (64, 16, 3, 64), (96, 3, 3, 96), (8, 8, 3, 16), (8, 1, 3, 4), (8, 1, 1, 4)],
)
def test_the_chosen_form_agrees_with_the_library(channels, groups, kernel, outputs, padding):
    x, weights = tensors((9, 6), channels, groups, kernel, outputs)
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


@pytest.fixture
def double_precision():
    with jax.enable_x64(True):
        yield


def in_float64(size, channels, groups, kernel, outputs, batch=2):
    x, weights = tensors(size, channels, groups, kernel, outputs, batch=batch)
    return jnp.asarray(x, jnp.float64), jnp.asarray(weights, jnp.float64)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(("size", "stride"), [((7, 10), 1), ((5, 3), 2)])
@pytest.mark.parametrize(
    ("form", "channels", "groups", "kernel", "outputs"),
    [case for case in FORMS if case[0] != "direct" and case[1] < 64],
)
def test_every_form_has_the_derivatives_of_the_library(
    form, channels, groups, kernel, outputs, size, stride
):
    x, weights = in_float64(size, channels, groups, kernel, outputs)
    pads = ((kernel // 2, kernel // 2), (kernel // 2, kernel // 2))

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(function):
        apply = functools.partial(function, strides=(stride, stride), pads=pads)
        value, pull = jax.vjp(apply, x, weights)
        return pull(jnp.sin(value)), jax.jvp(apply, (x, weights), (x, jnp.cos(weights)))

    ours = derivatives(getattr(convolution, form))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11),
        ours,
        derivatives(convolution.direct),
    )


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("pads", [AROUND, ((0, 2), (1, 0))])
def test_kernels_of_large_maps_have_their_gradient_from_blocks_of_rows(pads, monkeypatch):
    """Two of them here: a block ends in the middle of an image; also for several kernels."""
    monkeypatch.setattr(convolution, "_CACHE_BYTES", 8 * 9 * 16 * 32 * 5)
    x, weights = in_float64((32, 32), 5, 1, 3, 16, batch=4)

    def gradient(form, weights):
        value, pull = jax.vjp(lambda k: form(x, k, (1, 1), pads), weights)
        return pull(jnp.sin(value))[0]

    program = str(jax.make_jaxpr(functools.partial(gradient, convolution.trainable))(weights))
    assert "scan[" in program
    several = jnp.stack([weights, 2 * weights])
    ours, theirs = (
        jax.jit(jax.vmap(functools.partial(gradient, form)))(several)
        for form in (convolution.trainable, convolution.direct)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("batch", [1, 3])
def test_derivatives_are_finite_differences(batch):
    arguments = in_float64((4, 5), 3, 1, 3, 2, batch)
    check_grads(
        jax.jit(lambda x, k: jnp.tanh(0.1 * convolution.convolve(x, k, (1, 1), AROUND))),
        arguments,
        order=2,
        modes=("fwd", "rev"),
    )


@pytest.mark.usefixtures("double_precision")
def test_the_jacobian_is_the_same_in_both_modes_and_in_a_batch():
    x, weights = in_float64((3, 4), 2, 1, 3, 2, batch=3)
    several = jnp.stack([weights, 2 * weights])

    def jacobians(mode):
        jacobian = mode(lambda x, k: convolution.convolve(x, k, (1, 1), AROUND), argnums=(0, 1))
        return jax.jit(jax.vmap(jacobian, (None, 0)))(x, several)

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-12),
        jacobians(jax.jacfwd),
        jacobians(jax.jacrev),
    )


def loss(kernels, x, form=convolution.convolve):
    for kernel in kernels:
        x = jnp.tanh(form(x, kernel, (1, 1), AROUND))
    return jnp.sum(x.astype(jnp.float32))


library_loss = functools.partial(loss, form=convolution.direct)


def training(kernels, images, skip):
    """One step of gradient descent for each batch, in a loop with a branch as training has it."""

    def step(kernels, x):
        def update(kernels):
            slopes = jax.grad(loss)(kernels, x)
            return jax.tree.map(lambda k, g: k - 0.01 * g, kernels, slopes)

        return jax.lax.cond(skip, lambda k: k, update, kernels), None

    return jax.lax.scan(step, kernels, images)[0]


def training_inputs(batch=4, dtype=np.float32):
    images = np.random.default_rng(2).standard_normal((2, batch, 6, 6, 8))
    first = tensors((6, 6), 8, 1, 3, 8)[1]
    second = tensors((6, 6), 8, 1, 3, 4, seed=1)[1]
    return (jnp.asarray(first, dtype), jnp.asarray(second, dtype)), jnp.asarray(images, dtype)


@pytest.mark.parametrize("batch", [3, 4])
def test_training_in_a_loop_meets_only_the_fast_layout_on_cpu(batch):
    """And it is training step by step."""
    kernels, images = training_inputs(batch)
    program = jax.jit(training).lower(kernels, images, False).compile()
    text = program.as_text()
    assert "while(" in text
    layouts = re.findall(r" convolution\(.*dim_labels=([\w>-]+)", text)
    # Two forward passes, two weight gradients and one input gradient.
    assert layouts == ["b01f_01io->b01f"] * 5
    result = program(kernels, images, False)
    for x in images:
        slopes = jax.grad(library_loss)(kernels, x)
        kernels = jax.tree.map(lambda k, g: k - 0.01 * g, kernels, slopes)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), result, kernels)


@pytest.mark.parametrize(("platform", "own"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_accelerators_keep_the_gradients_of_the_library(platform, own):
    kernels, images = training_inputs()
    traced = jax.jit(jax.grad(loss)).trace(kernels, images[0])
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.transpose" in text) is own


def test_half_precision_gradients_are_those_of_the_same_numbers_in_full():
    kernels, images = training_inputs(dtype=jnp.bfloat16)
    half = jax.jit(jax.grad(loss))(kernels, images[0])
    full = jax.grad(library_loss)(*jax.tree.map(jnp.float32, (kernels, images[0])))
    for ours, theirs in zip(half, full, strict=True):
        assert ours.dtype == jnp.bfloat16
        error = jnp.linalg.norm(jnp.float32(ours) - theirs) / jnp.linalg.norm(theirs)
        assert error < 0.02  # five roundings to 8 bits on the way


def test_no_derivative_is_computed_that_is_not_asked_for():
    kernels, images = training_inputs()
    program = jax.jit(jax.grad(lambda k: loss([k], images[0]))).lower(kernels[0]).as_text()
    assert program.count("stablehlo.convolution") == 2  # the forward pass and this gradient
