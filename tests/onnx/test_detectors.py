"""Encoders and methods as ONNX graphs say what they say in JAX."""

import importlib

import jax
import numpy as np
import pytest

from flowad_jax import lookup
from flowad_jax.encoders import load
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


@pytest.fixture(params=backends.BACKENDS)
def run(request):
    pytest.importorskip(request.param)
    return backends.BACKENDS[request.param]


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
def test_a_method_says_the_same(name, dynamic, run):
    function, arrays = log_probs(name)
    backends.assert_same(function, *arrays, dynamic=dynamic, run=run)


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("name", maps.TINY)
def test_an_encoder_gives_the_same_maps(name, dynamic, run):
    encoder = load.load(
        name, "random", taps=TAPS.get(name, (1, 4) if "resnet" not in name else (0, 2))
    )
    image = maps.image(*SIZES.get(name, (64, 64)))

    def function(image):
        return encoder.apply(encoder.variables, image)

    backends.assert_same(function, image, dynamic=dynamic, run=run)
