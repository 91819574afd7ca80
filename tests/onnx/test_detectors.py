"""Encoders and methods as ONNX graphs say what they say in JAX."""

import importlib

import jax
import numpy as np
import pytest

from flowad_jax import lookup
from flowad_jax.encoders import load, transformer
from flowad_jax.types import Batch
from tests.encoders import maps
from tests.onnx import backends

METHODS = lookup.choices("flowad_jax.methods")
SIZES = {"vit.dinov2_tiny": (56, 70)}
TAPS = {
    "resnet.resnet_tiny": (0, 3),
    "vit.dinov2_tiny": (0, 3),
    "vit.vit_tiny": (0, 3),
    "cait.cait_tiny": (0, 3),
}


def log_probs(name, **options):
    """Likelihoods by a tiny variant away from its first parameters, and maps not square."""
    module = importlib.import_module(f"flowad_jax.methods.{name}")
    method = module.build(**(module.TINY | options))
    rng = np.random.default_rng(0)
    shapes = ((4, 6, 6), (2, 3, 10), (12, 18, 3))
    *scales, image = (rng.normal(size=(2, *shape)).astype(np.float32) for shape in shapes)
    batch = Batch(tuple(scales), image if method.needs_image else None)
    variables = method.init(jax.random.key(0), batch)
    params = jax.tree.map(
        lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), variables["params"]
    )
    variables = {**variables, "params": params}

    def function(*arrays):
        given = arrays[2] if method.needs_image else None
        return method.log_probs(variables, Batch(arrays[:2], given))

    return function, (*scales, image) if method.needs_image else scales


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_the_same(name, dynamic):
    function, arrays = log_probs(name)
    run = backends.installed()
    backends.assert_same(function, *arrays, dynamic=dynamic, run=run)


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("name", maps.TINY)
def test_an_encoder_gives_the_same_maps(name, dynamic):
    encoder = load.load(
        name, "random", taps=TAPS.get(name, (1, 4) if "resnet" not in name else (0, 2))
    )
    image = maps.image(*SIZES.get(name, (64, 64)))

    def function(image):
        return encoder.apply(encoder.variables, image)

    run = backends.installed()
    backends.assert_same(function, image, dynamic=dynamic, run=run)


def test_groups_of_queries_are_written_out(monkeypatch):
    monkeypatch.setattr(transformer, "ENTRIES", 16 * 3 * 8)  # two groups of 8 queries
    encoder = load.load("cait.cait_tiny", "random", taps=(1,))
    image = maps.image(64, 64)
    model = backends.assert_same(lambda x: encoder.apply(encoder.variables, x), image)
    assert [node.op_type for node in model.graph.node].count("Softmax") == 4


@pytest.mark.parametrize("name", ["msflow", "ssnf"])
def test_half_precision_is_computed_in_float32(name):
    """Only what is cast is rounded, so that results differ by some roundings of 2 ** -8."""
    function, arrays = log_probs(name, compute="bfloat16")
    backends.assert_same(function, *arrays, run=backends.installed(), tolerance=1e-2)
