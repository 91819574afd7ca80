"""Encoders in bfloat16: how far their maps are from those in float32, and what stays float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from flax.traverse_util import flatten_dict
from PIL import Image, ImageOps

from flowad_jax.encoders import load
from flowad_jax.encoders.precision import COMPUTE
from flowad_jax.features.batches import make_encode
from tests.encoders import maps, test_stored

LITE = "efficientnet_lite.efficientnet_lite_tiny"
# name -> taps. A number of eight bits is off by at most 2^-9, 0.2 %, and errors of layers add up:
# measured 0.5 to 1.4 % after four stages or blocks.
LIMIT = 0.03
NEAR = {
    "resnet.resnet_tiny": (0, 1, 2, 3),
    "mobilenet_v3.mobilenet_v3_tiny": (0, 1),
    "vit.vit_tiny": (0, 3),
    "cait.cait_tiny": (0, 3),
}
# Depthwise kernels take differences of neighbours, so that a sum is far smaller than its terms
# and their rounding counts for more: measured 2.1 to 3.8 % on the cat, up to 5.0 % on the tiles of
# CFLOW-AD, at the first tap as at the last.
LIMIT_OF_LITE0 = 0.08
# Other architectures, traced only.
MORE = {LITE: (6,), "efficientnet.efficientnet_tiny": (4,), "vit.dinov2_tiny": (3,)}


def photograph(side=64):
    """A cat as Lite0 wants it."""
    picture = ImageOps.fit(Image.fromarray(skimage.data.chelsea()), (side, side))
    return (np.asarray(picture, np.float32)[None] - 127) / 128


@functools.cache
def loaded(name, taps, compute):
    return load.load(name, "random", taps=taps, compute=compute)


def error(ours, exact):
    """Root of the mean square of the difference, as a share of that of the map."""
    return float(np.sqrt(np.mean((ours - exact) ** 2) / np.mean(exact**2)))


@pytest.mark.parametrize("name", NEAR)
def test_half_precision_is_near(name):
    encoders = [loaded(name, NEAR[name], compute) for compute in COMPUTE]
    exact, half = (jax.jit(e.apply)(e.variables, photograph()) for e in encoders)
    assert all(tap.dtype == np.float32 for tap in half)
    errors = [error(*pair) for pair in zip(half, exact, strict=True)]
    assert 1e-3 < max(errors) < LIMIT, errors


def test_half_precision_is_near_for_lite0_with_its_published_weights():
    encoder = load.load("efficientnet_lite.efficientnet_lite0", taps=(0, 1, 2), compute="bfloat16")
    taps = jax.jit(encoder.apply)(encoder.variables, test_stored.cat())
    exact = test_stored.stored_taps(test_stored.LITE0_FILE)
    errors = [error(maps.sample(tap), exact[scale]) for scale, tap in enumerate(taps)]
    assert 1e-3 < max(errors) < LIMIT_OF_LITE0, errors


def products(jaxpr):
    """All products of a program and of the programs within."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                yield from products(getattr(inner, "jaxpr", inner))


def _is_program(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.parametrize("name", [*NEAR, *MORE])
def test_no_product_falls_back_to_float32(name):
    """One float32 variable or constant on the way would make all layers behind it float32."""
    encoder = loaded(name, (NEAR | MORE)[name], "bfloat16")
    image = photograph(70 if encoder.spec.multiple == 14 else 64)
    program = jax.make_jaxpr(encoder.apply)(encoder.variables, image)
    found = [{v.aval.dtype.name for v in e.invars} for e in products(program.jaxpr)]
    assert len(found) > 4
    assert all(dtypes == {"bfloat16"} for dtypes in found)


def test_variables_of_normalising_layers_stay_as_they_are():
    name = "resnet.resnet_tiny"
    exact, half = (loaded(name, NEAR[name], compute) for compute in COMPUTE)
    before, after = flatten_dict(exact.variables), flatten_dict(half.variables)
    assert before.keys() == after.keys()
    for path, leaf in after.items():
        assert leaf.dtype == (jnp.bfloat16 if path[-1] == "kernel" else jnp.float32), path
        np.testing.assert_array_equal(leaf, before[path].astype(leaf.dtype))
    assert half.source == {**exact.source, "compute": "bfloat16"}


def test_pooling_and_normalisation_behind_the_taps_are_in_float32():
    """An average rounded to eight bits, or a variance, would be off by more."""
    encoder = loaded(LITE, (1,), "bfloat16")
    (tap,) = jax.jit(encoder.apply)(encoder.variables, photograph())
    encoder = load.load(LITE, "random", taps=(1,), compute="bfloat16", pool="avg", layer_norm=True)
    (ours,) = jax.jit(encoder.apply)(encoder.variables, photograph())
    pooled = np.pad(np.asarray(tap, np.float64), ((0, 0), (1, 0), (1, 0), (0, 0)))
    pooled = np.lib.stride_tricks.sliding_window_view(pooled, (3, 3), (1, 2))[:, ::2, ::2]
    pooled = pooled.sum((-1, -2)) / 9
    spread = np.sqrt(pooled.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(ours, (pooled - pooled.mean(-1, keepdims=True)) / spread, atol=1e-4)


def test_an_image_that_a_method_sees_is_not_rounded():
    encoder, image = loaded(LITE, (1,), "bfloat16"), photograph() / 3
    seen = make_encode(encoder, "float32", needs_image=True)(encoder.variables, image).image
    np.testing.assert_array_equal(seen, image)
