"""What is put around a network, or beside its weights, does not keep them from being read."""

import argparse
import itertools
import pickle

import numpy as np
import pytest

from flowad_jax.encoders import load, resnet
from flowad_jax.errors import UserError
from flowad_jax.weights import detectors, layout, torch_file, torch_writer
from flowad_jax.weights.wrappers import unwrapped
from tests.encoders import maps
from tests.weights import craft
from tests.weights.test_references import assert_same, content

TINY = "resnet.resnet_tiny"
OUTSIDE = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
NESTED = [
    ".".join(prefix) + "."
    for depth in (1, 2, 3)
    for prefix in itertools.product(OUTSIDE[: 4 if depth < 3 else 2], repeat=depth)
]


def wrapped(tensors, prefix):
    return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("prefix", NESTED)
def test_wrappers_of_an_encoder(tmp_path, prefix):
    tensors = layout.to_torch(maps.random_variables(TINY), resnet.torch_key)
    assert_same(unwrapped(wrapped(tensors, prefix)), tensors)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_they_are_converted(tmp_path, prefix):
    tensors = layout.to_torch(maps.random_variables(TINY), resnet.torch_key)
    torch_writer.write(tmp_path / "a.pth", wrapped(tensors, prefix))
    assert_same(load.convert_checkpoint(TINY, tmp_path / "a.pth")[0], maps.random_variables(TINY))


def test_wrappers_of_parts_and_averages():
    tensors = {"layer1.0.conv1.weight": np.ones(3), "layer1.0.conv2.weight": np.ones(2)}
    compiled = {
        "module.layer1.0._orig_mod.conv1.weight": np.ones(3),
        "module.layer1._orig_mod.0.conv2._orig_mod.weight": np.ones(2),
        "n_averaged": np.array(7),
    }
    assert_same(unwrapped(compiled), tensors)


def test_names_that_only_look_like_it_stay():
    tensors = {"my_orig_mod.weight": 1, "module.weight": 2, "modules.weight": 3, "x._orig_mod": 4}
    assert unwrapped(tensors) == tensors


def test_one_tensor_under_two_names_is_refused():
    with pytest.raises(UserError, match=r"'a\.weight' twice"):
        unwrapped({"a.weight": 1, "_orig_mod.a.weight": 2})


def test_very_deep_wrappers_take_no_time():
    deep = "module." * 1000
    assert unwrapped({f"{deep}{index}": index for index in range(300)}).keys() == {
        str(index) for index in range(300)
    }


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("method", ["cflow", "sanflow", "msflow", "ssnf"])
def test_wrappers_of_a_detector(method, prefix):
    plain = content(method)

    def around(value):
        if isinstance(value, list):
            return [around(part) for part in value]
        return wrapped(value, prefix) if isinstance(value, dict) else value

    whole = {key: around(value) for key, value in plain.items()}
    found = detectors.recognise(wrapped(plain, prefix) if method == "ssnf" else whole, "a.pt")
    assert_same(found.variables, detectors.recognise(plain, "a.pt").variables)


def test_wrappers_of_lightning():
    decoder, encoder = content("cflow")["decoder_state_dict"][0], {"conv1.weight": np.ones(3)}
    for start in ("model.", "_orig_mod.model.", "model._orig_mod."):
        state = wrapped(encoder, f"{start}encoder.feature_extractor.")
        state |= wrapped(decoder, f"{start}decoders.0.")
        found = detectors.recognise({"state_dict": state}, "a.ckpt")
        assert found.dialect == "anomalib"
        assert_same(found.encoder, encoder)


def _beside():
    scalar = np.float64(0.93)
    return {
        "numpy scalar": pickle.dumps(scalar, 2)[2:-1],
        "numpy scalar, protocol 4": pickle.dumps(scalar, 4)[2:-1],
        "numpy array": pickle.dumps(np.arange(3), 2)[2:-1],
        "namespace": pickle.dumps(argparse.Namespace(lr=0.1, layers=[1, 2]), 2)[2:-1],
        "numpy scalar in a namespace": pickle.dumps(argparse.Namespace(best=scalar), 2)[2:-1],
        "counters": pickle.dumps({(0, "a"): {1, 2}, 3: slice(1)}, 2)[2:-1],
    }


@pytest.mark.parametrize("name", _beside())
@pytest.mark.parametrize("key", torch_file.STATE_DICT_KEYS)
def test_objects_beside_the_weights_of_an_encoder(tmp_path, name, key):
    array = np.arange(6, dtype=np.float32)
    body = craft.mapping({key: craft.mapping({"a": craft.whole("s", array)}), "x": _beside()[name]})
    path = craft.zip_file(tmp_path / "a.pth", body, {"s": array.tobytes()})
    assert_same(torch_file.state_dict(path), {"a": array})


def test_objects_in_the_place_of_weights_are_named(tmp_path, refused):
    body = craft.mapping({"state_dict": craft.mapping({"a": _beside()["namespace"]})})
    path = craft.zip_file(tmp_path / "a.pth", body)
    refused(path, "no flat state dict", "'state_dict'", reader=torch_file.state_dict)


def test_what_could_run_something_is_refused_beside_weights_as_well(tmp_path, refused):
    harm = craft.named("posix", "system") + craft.text("touch HARM") + b"\x85R"
    body = craft.mapping({"model": b"}", "x": harm})
    path = craft.zip_file(tmp_path / "a.pth", body)
    refused(path, "'posix.system'", reader=torch_file.state_dict)
