"""Tapped maps against tensors that PyTorch computed, without PyTorch.

``python -m tests.encoders.test_stored`` computes them again, where the peers are installed.
"""

from pathlib import Path

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageOps

from flowad_jax.encoders import architecture, load
from flowad_jax.ops.convolution import convolve
from peers import encoders as peers
from tests.encoders import maps, tiny_transformers

GOLDEN = Path(__file__).parents[1] / "golden"
IMAGE = maps.image(70, 61)
SMALL, B5 = "mobilenet_v3.mobilenet_v3_small", "efficientnet.tf_efficientnet_b5"
# Stored file -> (network, options, modules of the peer behind the taps, these taps or all).
RANDOM = {
    "resnet18_reflect": ("resnet.resnet18", {"padding": "reflect"}, None, None),
    "resnet18_zeros": ("resnet.resnet18", {"padding": "zeros"}, None, None),
    "resnext50_32x4d_reflect": ("resnet.resnext50_32x4d", {"padding": "reflect"}, None, None),
    "mobilenet_v3_small": (
        SMALL,
        {},
        [f"features.{block}.block.{n}.0" for block, n in ((1, 2), (3, 2), (8, 3), (11, 3))],
        (0, 2, 7, 10),
    ),
    "tf_efficientnet_b5": (B5, {}, [f"blocks.{stage}" for stage in range(7)], None),
}
LONG_TO_COMPILE = ("resnext50_32x4d_reflect", "mobilenet_v3_small", "tf_efficientnet_b5")
LITE0 = "efficientnet_lite.efficientnet_lite0"
LITE0_FILE = GOLDEN / "encoder_efficientnet_lite0.npz"


def transformer_file(name):
    return GOLDEN / f"encoder_{'cait_tiny' if 'cait' in name else 'vit'}.npz"


def stored_taps(path):
    with np.load(path) as file:
        return [file[f"tap{index}"] for index in range(len(file.files))]


def cat():
    """A photograph of odd sides, as the encoder wants it."""
    pixels = skimage.data.chelsea()[20:244, 100:293].astype(np.float32)
    return ((pixels - 127) / 128)[None]


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=[pytest.mark.whole] * (file in LONG_TO_COMPILE)) for file in RANDOM],
)
def test_random_weights(file):
    name, options, _, taps = RANDOM[file]
    taps = taps or tuple(range(len(architecture.find(name).spec.channels)))
    module = architecture.find(name).factory(taps=taps, **options)
    found = jax.jit(module.apply)(maps.random_variables(name), IMAGE)
    expected = stored_taps(GOLDEN / f"encoder_{file}.npz")
    maps.assert_close([maps.sample(tap) for tap in found], expected)


@pytest.mark.parametrize(("name", "height", "width", "images"), tiny_transformers.CASES)
def test_every_block_of_a_transformer(name, height, width, images):
    nets = [maps.every_tap(name, final_norm=norm) for norm in (True, False)]
    both = jax.jit(lambda variables, image: [net.apply(variables, image) for net in nets])
    found = both(maps.random_variables(name), maps.image(height, width, images))
    with np.load(transformer_file(name)) as file:
        expected = [file[key] for key in tiny_transformers.keys(name, height, width)]
    maps.assert_close([maps.sample(tap) for taps in found for tap in taps], expected)


def test_efficientnet_lite0_with_its_published_weights():
    encoder = load.load(LITE0, taps=tuple(range(7)))
    np.testing.assert_allclose(
        (cat() * 128 + 127) / 255,
        cat() * np.float32(encoder.spec.std) + np.float32(encoder.spec.mean),
        atol=1e-6,
    )
    taps = jax.jit(encoder.apply)(encoder.variables, cat())
    maps.assert_close([maps.sample(tap) for tap in taps], stored_taps(LITE0_FILE))


def test_normalisation_of_lite0_gives_the_statistics_stored_in_its_weights():
    """The wrong one, ImageNet's mean and deviation, is five times off: 0.7 against 3.4."""
    encoder = load.load(LITE0, taps=(0,))
    pictures = [getattr(skimage.data, n)() for n in ("chelsea", "coffee", "rocket", "astronaut")]
    crops = [
        ImageOps.fit(Image.fromarray(p), (224, 224), Image.Resampling.BICUBIC) for p in pictures
    ]
    pixels = np.stack([np.asarray(crop, np.float32) / 255 for crop in crops])
    image = (pixels - np.float32(encoder.spec.mean)) / np.float32(encoder.spec.std)
    output = convolve(image, encoder.variables["params"]["conv_stem"]["kernel"], (2, 2), "SAME")
    stored = encoder.variables["batch_stats"]["bn0"]["var"]
    alive = stored > 1e-6
    ratio = np.var(output, axis=(0, 1, 2))[alive] / stored[alive]
    assert 0.5 < np.median(ratio) < 1.5


def main():
    import torch

    from flowad_jax.weights import store

    files = {}
    for file, (name, options, modules, _) in RANDOM.items():
        if modules is None:
            model = peers.resnet(name.partition(".")[2], options["padding"])
            found = peers.resnet_taps(peers.fill(model, peers.random_state(model)), IMAGE)
        else:
            model = peers.build(architecture.find(name).spec.peer)
            outputs = peers.activations(
                peers.fill(model, peers.random_state(model)), IMAGE, modules
            )
            found = [outputs[module] for module in modules]
        files[GOLDEN / f"encoder_{file}.npz"] = {f"tap{i}": tap for i, tap in enumerate(found)}
    for name, height, width, images in tiny_transformers.CASES:
        model, image = tiny_transformers.peer(name), maps.image(height, width, images)
        found = [t for n in (True, False) for t in tiny_transformers.peer_taps(model, image, n)]
        named = zip(tiny_transformers.keys(name, height, width), found, strict=True)
        files.setdefault(transformer_file(name), {}).update(named)
    model = peers.efficientnet_lite("efficientnet_lite0", cat().shape[1:3])
    model.load_state_dict(torch.load(store.embedded(LITE0), weights_only=True))
    found = peers.efficientnet_lite_taps(model.eval(), cat())
    files[LITE0_FILE] = {f"tap{index}": tap for index, tap in enumerate(found)}
    for path, taps in files.items():
        samples = {key: maps.sample(tap) for key, tap in taps.items()}
        np.savez_compressed(path, allow_pickle=False, **samples)


if __name__ == "__main__":
    main()
