"""Tapped maps against tensors that PyTorch computed, without PyTorch.

``python -m tests.encoders.test_stored`` computes them again, where the peers are installed.
"""

from pathlib import Path

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageOps

from flowad_jax.convolution import convolve
from flowad_jax.encoders import load
from peers import encoders as peers
from tests.encoders import maps

GOLDEN = Path(__file__).parents[1] / "golden"
RANDOM = [
    ("resnet.resnet18", "reflect"),
    ("resnet.resnet18", "zeros"),
    ("resnet.resnext50_32x4d", "reflect"),
]
RANDOM_IMAGE = maps.image(70, 61)
OTHERS = {
    "mobilenet_v3.mobilenet_v3_small": [
        f"features.{block}.block.{layer}.0" for block, layer in ((1, 2), (3, 2), (8, 3), (11, 3))
    ],
    "efficientnet.tf_efficientnet_b5": [f"blocks.{stage}" for stage in range(7)],
}
OTHER_TAPS = {"mobilenet_v3.mobilenet_v3_small": (0, 2, 7, 10)}
LITE0 = "efficientnet_lite.efficientnet_lite0"
LITE0_FILE = GOLDEN / "encoder_efficientnet_lite0.npz"


def stored_file(name, padding=""):
    return GOLDEN / f"encoder_{name.split('.')[1]}{padding and f'_{padding}'}.npz"


def stored_taps(path):
    with np.load(path) as file:
        return [file[f"tap{index}"] for index in range(len(file.files))]


def cat():
    """A photograph of odd sides, as the encoder wants it."""
    pixels = skimage.data.chelsea()[20:244, 100:293].astype(np.float32)
    return ((pixels - 127) / 128)[None]


@pytest.mark.parametrize(("name", "padding"), RANDOM)
def test_random_weights(name, padding):
    module, _ = maps.every_tap(name, padding=padding)
    taps = jax.jit(module.apply)(maps.random_variables(name), RANDOM_IMAGE)
    maps.assert_close([maps.sample(tap) for tap in taps], stored_taps(stored_file(name, padding)))


@pytest.mark.parametrize("name", OTHERS)
def test_random_weights_of_other_families(name):
    module, _ = maps.every_tap(name)
    # The programs are long; nothing here depends on XLA's effort.
    options = {"xla_backend_optimization_level": 0}
    taps = jax.jit(module.apply, compiler_options=options)(
        maps.random_variables(name), RANDOM_IMAGE
    )
    chosen = [taps[tap] for tap in OTHER_TAPS.get(name, range(len(taps)))]
    maps.assert_close([maps.sample(tap) for tap in chosen], stored_taps(stored_file(name)))


def test_efficientnet_lite0_with_its_published_weights():
    encoder = load.load(LITE0, taps=tuple(range(7)))
    np.testing.assert_allclose(
        (cat() * 128 + 127) / 255,
        cat() * np.float32(encoder.spec.std) + np.float32(encoder.spec.mean),
        atol=1e-6,
    )
    taps = jax.jit(encoder.apply)(encoder.variables, cat())
    maps.assert_close([maps.sample(tap) for tap in taps], stored_taps(LITE0_FILE))


def photographs(spec):
    """Centre crops at 224 px, normalised as ``spec`` says."""
    crops = []
    for name in ("chelsea", "coffee", "rocket", "astronaut"):
        picture = Image.fromarray(getattr(skimage.data, name)())
        crops.append(ImageOps.fit(picture, (224, 224), Image.Resampling.BICUBIC))
    pixels = np.stack([np.asarray(crop, np.float32) / 255 for crop in crops])
    return (pixels - np.float32(spec.mean)) / np.float32(spec.std)


def test_normalisation_of_lite0_gives_the_statistics_stored_in_its_weights():
    """The wrong one, ImageNet's mean and deviation, is five times off: 0.7 against 3.4."""
    encoder = load.load(LITE0, taps=(0,))
    stem = encoder.variables["params"]["conv_stem"]["kernel"]
    output = convolve(photographs(encoder.spec), stem, (2, 2), "SAME")
    stored = encoder.variables["batch_stats"]["bn0"]["var"]
    alive = stored > 1e-6
    ratio = np.var(output, axis=(0, 1, 2))[alive] / stored[alive]
    assert 0.5 < np.median(ratio) < 1.5


def write(path, taps):
    samples = {f"tap{index}": maps.sample(tap) for index, tap in enumerate(taps)}
    np.savez_compressed(path, allow_pickle=False, **samples)


def main():
    import torch

    from flowad_jax.weights import store

    for name, padding in RANDOM:
        model = peers.resnet(name.split(".")[1], padding)
        peers.fill(model, peers.random_state(model))
        write(stored_file(name, padding), peers.resnet_taps(model, RANDOM_IMAGE))
    for name, modules in OTHERS.items():
        family, variant = name.split(".")
        model = peers.build(maps.FAMILIES[family].SPECS[variant].peer)
        peers.fill(model, peers.random_state(model))
        found = peers.activations(model, RANDOM_IMAGE, modules)
        write(stored_file(name), [found[module] for module in modules])
    model = peers.efficientnet_lite("efficientnet_lite0", cat().shape[1:3])
    model.load_state_dict(torch.load(store.embedded(LITE0), weights_only=True))
    write(LITE0_FILE, peers.efficientnet_lite_taps(model.eval(), cat()))


if __name__ == "__main__":
    main()
