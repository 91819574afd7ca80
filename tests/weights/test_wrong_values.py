"""Weights that are no numbers are refused before anything is computed with them."""

import contextlib

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from flowad_jax.encoders import load, resnet
from flowad_jax.errors import UserError
from flowad_jax.weights import detectors, layout, store, torch_file, torch_writer
from tests.encoders import maps
from tests.weights.test_references import content

TINY = "resnet.resnet_tiny"
WRONG = {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf}
METHODS = ("cflow", "sanflow", "msflow", "ssnf")


def torch_tensors():
    return layout.to_torch(maps.random_variables(TINY), resnet.torch_key)


def named_in(path, tensor, action):
    """The one line that an action ends with."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert message.isprintable()
    assert path in message
    assert repr(tensor) in message
    return message


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("key", ["conv1.weight", "bn1.running_mean", "layer4.0.bn2.bias"])
def test_an_encoder_of_torch_is_refused(tmp_path, name, key):
    path, tensors = tmp_path / "net.pth", torch_tensors()
    tensors[key].flat[-1] = WRONG[name]
    torch_writer.write(path, tensors)
    for action in (load.convert_checkpoint, load.load):
        assert "NaN or infinite" in named_in("net.pth", key, lambda a=action: a(TINY, str(path)))


@pytest.mark.parametrize("dtype", ["float16", "float64", ml_dtypes.bfloat16])
def test_so_it_is_in_other_types(tmp_path, dtype):
    tensors = torch_tensors()
    tensors["conv1.weight"] = tensors["conv1.weight"].astype(dtype)
    torch_writer.write(tmp_path / "net.pth", tensors)
    load.convert_checkpoint(TINY, tmp_path / "net.pth")
    tensors["conv1.weight"].flat[5] = np.nan
    torch_writer.write(tmp_path / "net.pth", tensors)
    named_in("net.pth", "conv1.weight", lambda: load.convert_checkpoint(TINY, tmp_path / "net.pth"))


def test_what_is_too_large_for_float32_is_refused(tmp_path):
    tensors = torch_tensors()
    tensors["bn1.weight"] = np.full(tensors["bn1.weight"].shape, 1e300)
    torch_writer.write(tmp_path / "net.pth", tensors)
    named_in("net.pth", "bn1.weight", lambda: load.load(TINY, str(tmp_path / "net.pth")))


def test_a_negative_variance_is_refused(tmp_path):
    path, tensors = tmp_path / "net.safetensors", torch_tensors()
    tensors["layer1.0.bn1.running_var"][0] = -0.5
    safetensors.numpy.save_file(tensors, path)
    message = named_in("net", "layer1.0.bn1.running_var", lambda: load.load(TINY, str(path)))
    assert "negative variances" in message


def test_what_no_map_needs_may_hold_anything(tmp_path):
    tensors = torch_tensors() | {"fc.weight": np.full((10, 64), np.nan, "f4")}
    tensors["bn1.num_batches_tracked"] = np.array(2**62)
    torch_writer.write(tmp_path / "net.pth", tensors)
    load.load(TINY, str(tmp_path / "net.pth"))


@pytest.mark.parametrize("suffix", store.SUFFIXES)
@pytest.mark.parametrize("name", WRONG)
def test_a_converted_encoder_is_refused(tmp_path, suffix, name):
    path, torch_path = tmp_path / f"net{suffix}", tmp_path / "torch.pth"
    torch_writer.write(torch_path, torch_tensors())
    variables, card = load.convert_checkpoint(TINY, torch_path)
    variables["params"]["conv1"]["kernel"] = np.full((7, 7, 3, 8), WRONG[name], np.float32)
    store.save(path, variables, card)
    named_in(str(path), "params/conv1/kernel", lambda: load.load(TINY, str(path)))
    variables["params"]["conv1"]["kernel"] = np.ones((7, 7, 3, 8), np.float32)
    variables["batch_stats"]["bn1"]["var"] = np.full(8, -1, np.float32)
    store.save(path, variables, card)
    named_in(str(path), "batch_stats/bn1/var", lambda: load.load(TINY, str(path)))


def states(found):
    """The state dicts in a checkpoint that flows are made of."""
    nested = [found.get(key) for key in ("decoder_state_dict", "parallel_flows")]
    inner = [state for states in nested for state in states or ()]
    return inner + [found[key] for key in ("variance", "fusion_flow") if key in found] or [found]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize(("method", "count"), [("cflow", 1), ("sanflow", 3), ("msflow", 4)])
def test_a_detector_is_refused(tmp_path, method, count, name):
    assert len(states(content(method))) == count
    for index in range(count):
        _check_detector(tmp_path / "detector.pt", method, index, WRONG[name])


@pytest.mark.parametrize("name", WRONG)
def test_a_detector_of_ssnf_is_refused(tmp_path, name):
    _check_detector(tmp_path / "detector.pt", "ssnf", 0, WRONG[name])


def _check_detector(path, method, index, value):
    found = content(method)
    state = states(found)[index]
    key = max(key for key in state if state[key].dtype == np.float32)
    state[key] = np.array(state[key])
    state[key].flat[0] = value
    torch_writer.write(path, found)
    read = torch_file.read(path, foreign=True)
    named_in(path.name, key, lambda: detectors.recognise(read, path.name))


def test_a_negative_variance_of_a_detector_is_refused():
    found = content("sanflow")
    key = next(key for key in found["variance"] if key.endswith("running_var"))
    found["variance"][key] = -np.ones_like(found["variance"][key])
    message = named_in("a.pt", key, lambda: detectors.recognise(found, "a.pt"))
    assert "negative" in message


@pytest.mark.parametrize("method", METHODS)
def test_tensors_of_other_shapes_are_one_line(method):
    """Every tensor in turn, in several shapes and types, is converted or refused."""
    found, refused = content(method), 0
    for state in states(found):
        for key in list(state)[::2]:
            right = state[key]
            for change in CHANGES:
                state[key] = change(right)
                with contextlib.suppress(UserError):
                    detectors.recognise(found, "a.pt")
                    refused -= 1
                refused += 1
            state[key] = right
    assert detectors.recognise(found, "a.pt").method == method
    assert refused > 30


CHANGES = (
    lambda tensor: tensor[None],
    lambda tensor: tensor.ravel()[:0],
    lambda tensor: np.zeros((), tensor.dtype),
    lambda tensor: np.zeros((2, 3, 5, 7), tensor.dtype),
    lambda tensor: tensor.astype(np.complex64),
    lambda tensor: tensor.astype(bool),
)
