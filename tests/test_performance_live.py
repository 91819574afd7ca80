"""The sides of the performance benchmark do the same work; small recipes, in this process."""

import argparse
import math
from importlib.util import find_spec

import jax
import numpy as np
import pytest

from benchmarks.performance.contest import told
from benchmarks.performance.jax_side import JaxSide
from benchmarks.performance.jobs import JOBS
from benchmarks.performance.workers import recipe
from flowad_jax.detector.model import build_model

pytestmark = pytest.mark.live
OPTIONS = argparse.Namespace(precision="float32", freia="0.2", compile_mode="default")
SMALL = ["data.image_size=64", "train.batch_size=2", "eval.batch_size=3"]
RECIPES = {
    "cflow": ["method.blocks=1", "method.fibre_size=8"],
    "msflow": ["method.blocks=(1, 1, 1)"],
    "sanflow": ["method.blocks=1"],
    "ssnf": ["method.blocks=1"],
}


@pytest.fixture
def torch():
    found = pytest.importorskip("torch")
    # Not imported here: peers.encoders has to declare an operator before torchvision is.
    for name in ("FrEIA", "torchvision", "efficientnet_lite_pytorch", "timm"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    threads = found.get_num_threads()
    yield found
    found.set_num_threads(threads)


def small(method, *more):
    return recipe(f"configs/{method}_magnetic_tile.py", [*SMALL, *RECIPES[method], *more])


def torch_side(config, *words):
    from benchmarks.performance.torch_side import TorchSide

    return TorchSide(config, told(config, OPTIONS), list(words))


def called(side, job):
    side.start(job)
    result = side.prepare(job)()
    side.wait(result)
    return result


@pytest.mark.parametrize("method", RECIPES)
def test_pytorch_gives_maps_of_our_shapes_and_trains_what_we_train(torch, method):
    config = small(method)
    side, model = torch_side(config), build_model(config)
    variables = model.variable_shapes
    ours = jax.eval_shape(model.method.log_probs, variables, model.batch_shapes)
    for job, images in (("infer", 3), ("infer one", 1)):
        theirs = called(side, job)
        assert [x.shape for x in theirs] == [(images, *x.shape[1:]) for x in ours]
    trained = sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"]))
    parameters = [p for p in side._system.module.parameters() if p.requires_grad]
    assert sum(p.numel() for p in parameters) == trained
    before = [p.detach().clone() for p in parameters]
    assert np.isfinite(called(side, "train").item())
    assert not any(torch.equal(p, old) for p, old in zip(parameters, before, strict=True))
    assert side.peak_bytes() > 0


def test_our_side_does_every_job():
    config = small("cflow", "encoder.name=resnet.resnet_tiny", "encoder.strides=(8,)")
    side = JaxSide(config, told(config, OPTIONS))
    loss, maps, one = (called(side, job) for job in JOBS)
    assert np.isfinite(float(loss))
    assert [x.shape[0] for x in maps] == [3]
    assert [x.shape[0] for x in one] == [1]
    assert side.peak_bytes() > 0


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("resnet.resnet18", {"encoder.strides": (4, 8, 16), "encoder.pool": "avg"}),
        ("cait.cait_xxs24_224", {"encoder.taps": (5,)}),
    ],
)
def test_frozen_encoders_give_maps_of_our_shapes(torch, name, more):
    from peers import frozen

    words = [f"{key}={value!r}" for key, value in more.items()]
    config = recipe("configs/ssnf_magnetic_tile.py", [*SMALL, f"encoder.name={name}", *words])
    taps = told(config, OPTIONS).taps
    network = frozen.build(config.encoder.to_dict(), taps, 64)
    with torch.no_grad():
        maps = network(torch.randn(1, 3, 64, 64))
    ours = build_model(config).batch_shapes.maps
    assert [(1, *x.shape[2:], x.shape[1]) for x in maps] == [x.shape for x in ours]
    for x in maps:  # the recipe normalises
        np.testing.assert_allclose(x.var(1, unbiased=False).numpy(), 1, rtol=0.02)


def test_an_encoder_without_a_peer_is_named(torch):
    config = small("ssnf", "encoder.name=mobilenet_v3.mobilenet_v3_large")
    with pytest.raises(LookupError, match="no peer for encoder"):
        torch_side(config)
