"""State dicts of the authors' networks, converted and back, are the same to the last bit."""

import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.weights import detectors, references, torch_file, torch_writer
from tests import golden

ENCODER = {"conv1.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}


def stored(name):
    return golden.state_dict(golden.load(name))


def as_indices(state):
    """The same chain as FrEIA has stored it since June 2023."""
    return {
        key: value.reshape(value.shape[:2]).argmax(1) if "w_perm" in key else value
        for key, value in state.items()
    }


def hard(state):
    """The same chain with one-hot matrices in the place of rotations."""
    found, rng = dict(state), np.random.default_rng(0)
    for key in [key for key in state if key.endswith("w_perm")]:
        found[key] = np.eye(len(state[key]), dtype=np.float32)[rng.permutation(len(state[key]))]
        found[f"{key}_inv"] = found[key].T
    return found


def msflow():
    flat = stored("msflow")

    def part(prefix):
        return {key.removeprefix(prefix): flat[key] for key in flat if key.startswith(prefix)}

    parallel = [part(f"parallel_flows/{scale}/") for scale in range(3)]
    return {"epoch": 0, "fusion_flow": part("fusion_flow/"), "parallel_flows": parallel}


def content(method):
    if method == "msflow":
        return msflow()
    if method == "ssnf":
        return {f"flow_model.{key}": value for key, value in stored("ssnf").items()}
    decoder = stored("cflow_decoder")
    if method == "cflow":
        return {"encoder_state_dict": ENCODER, "decoder_state_dict": [decoder]}
    variance = stored("sanflow_snet")
    decoders = [hard(decoder), hard(decoder)]
    found = {"encoder_state_dict": ENCODER, "decoder_state_dict": decoders, "variance": variance}
    for key in variance:
        if key.endswith("num_batches_tracked"):  # nothing depends on it, so it is not kept
            variance[key] = np.zeros((), np.int64)
    return found


def in_scale_order(content):
    """MSFlow's code orders the channels of its fusion differently from run to run."""
    if "fusion_flow" not in content:
        return content
    fusion = dict(content["fusion_flow"])
    orders = {len(fusion[key]): key.removesuffix(".perm") for key in fusion if key[-5:] == ".perm"}
    pairs = {key: fusion.pop(key) for key in list(fusion) if ".perm" in key}
    for scale, flow in enumerate(content["parallel_flows"]):
        name = orders[flow["module_list.0.global_scale"].size]
        for end in ("perm", "perm_inv"):
            fusion[f"module_list.{scale}.{end}"] = pairs[f"{name}.{end}"]
    return content | {"fusion_flow": fusion}


def assert_same(found, expected, name=""):
    """Keys, shapes, types of number and values."""
    assert type(found) is type(expected) or isinstance(found, dict), name
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), name
        for key, value in expected.items():
            assert_same(found[key], value, f"{name}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), name
        for index, value in enumerate(expected):
            assert_same(found[index], value, f"{name}/{index}")
    elif isinstance(expected, np.ndarray):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), name
        np.testing.assert_array_equal(found, expected, err_msg=name)
    else:
        assert found == expected, name


def there_and_back(expected, tmp_path, indices=False):
    """The content again, and as a reader finds it in the file."""
    found = detectors.recognise(expected, "theirs.pt")
    back = references.content(found.method, found.variables, found.encoder, indices=indices)
    torch_writer.write(tmp_path / "back.pt", back)
    return back, torch_file.read(tmp_path / "back.pt")


@pytest.mark.parametrize("method", ["cflow", "sanflow", "msflow", "ssnf"])
def test_matrices_are_the_same_again(method, tmp_path):
    expected = content(method)
    for found in there_and_back(expected, tmp_path):
        assert_same(found, in_scale_order(expected))


@pytest.mark.parametrize("method", ["sanflow", "msflow", "ssnf"])
def test_indices_are_the_same_again(method, tmp_path):
    """And a file with matrices becomes one with indices."""
    matrices = content(method)
    chains = {"sanflow": "decoder_state_dict", "msflow": "parallel_flows"}
    if method == "ssnf":
        expected = as_indices(matrices)
    else:
        states = [as_indices(state) for state in matrices[chains[method]]]
        expected = matrices | {chains[method]: states}
    for source in (matrices, expected):
        for found in there_and_back(source, tmp_path, indices=True):
            assert_same(found, in_scale_order(expected))


def test_rotations_have_no_indices(tmp_path):
    for found in there_and_back(content("cflow"), tmp_path, indices=True):
        assert_same(found, content("cflow"))


def test_big_tensors_are_views():
    """A detector of some GB is in memory once; only one-hot matrices have to be made."""
    expected = content("cflow")
    found = detectors.recognise(expected, "theirs.pt")
    back = references.content("cflow", found.variables)["decoder_state_dict"][0]
    assert all(
        np.shares_memory(back[key], value)
        for key, value in expected["decoder_state_dict"][0].items()
        if not key.endswith("w_perm_inv")  # the transpose of the other
    )
    assert np.shares_memory(
        back["module_list.0.w_perm_inv"], expected["decoder_state_dict"][0]["module_list.0.w_perm"]
    )


def test_ssnf_has_one_scale():
    found = detectors.recognise(content("ssnf"), "theirs.pt").variables
    two = {
        kind: {"scale0": tree["scale0"], "scale1": tree["scale0"]} for kind, tree in found.items()
    }
    with pytest.raises(UserError, match="SSNF's code has one scale, this detector has 2"):
        references.content("ssnf", two)
