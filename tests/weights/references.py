"""Checkpoints as the authors' code writes them, made of stored tensors."""

import numpy as np

from flowad_jax.encoders.families import resnet
from flowad_jax.weights import layout
from tests import golden
from tests.encoders import maps

METHODS = ("cflow", "sanflow", "msflow", "ssnf")
ENCODER = {"conv1.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
TINY = "resnet.resnet_tiny"


def encoder_tensors():
    """The state dict of a tiny encoder; its arrays may be changed."""
    tensors = layout.to_torch(maps.random_variables(TINY), resnet.torch_key)
    return {key: np.array(tensor) for key, tensor in tensors.items()}


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


def content(method):
    """What the authors' code of a method saves; ``"anomalib"``: what that saves."""
    if method == "msflow":
        flat = stored("msflow")

        def part(prefix):
            return {key.removeprefix(prefix): flat[key] for key in flat if key.startswith(prefix)}

        parallel = [part(f"parallel_flows/{scale}/") for scale in range(3)]
        return {"epoch": 0, "fusion_flow": part("fusion_flow/"), "parallel_flows": parallel}
    if method == "ssnf":
        return wrapped(stored("ssnf"), "flow_model.")
    decoder = stored("cflow_decoder")
    if method == "cflow":
        return {"encoder_state_dict": dict(ENCODER), "decoder_state_dict": [decoder]}
    if method == "anomalib":
        state = wrapped(ENCODER, "model.encoder.feature_extractor.")
        return {"state_dict": state | wrapped(decoder, "model.decoders.0.")}
    variance = stored("sanflow_snet")
    for key in variance:
        if key.endswith("num_batches_tracked"):  # nothing depends on it, so it is not kept
            variance[key] = np.zeros((), np.int64)
    decoders = [hard(decoder), hard(decoder)]
    return {"encoder_state_dict": ENCODER, "decoder_state_dict": decoders, "variance": variance}


def states(found):
    """The state dicts in a checkpoint that flows are made of."""
    nested = [found.get(key) for key in ("decoder_state_dict", "parallel_flows")]
    inner = [state for states in nested for state in states or ()]
    return inner + [found[key] for key in ("variance", "fusion_flow") if key in found] or [found]


def wrapped(tensors, prefix):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def assert_same(found, expected, name=""):
    """Equal in kind, dtype, shape and value; ``found`` may hold tensors of torch."""
    if isinstance(expected, dict):
        assert list(found) == list(expected) or found.keys() == expected.keys(), name
        for key, value in expected.items():
            assert_same(found[key], value, f"{name}/{key}")
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected), name
        assert len(found) == len(expected), name
        for index, value in enumerate(expected):
            assert_same(found[index], value, f"{name}/{index}")
    elif isinstance(expected, np.ndarray):
        assert str(found.dtype).removeprefix("torch.") == expected.dtype.name, name
        assert tuple(found.shape) == expected.shape, name
        if expected.dtype.name == "bfloat16":
            expected = expected.astype("f4")
            found = found.astype("f4") if isinstance(found, np.ndarray) else found.float()
        np.testing.assert_array_equal(np.asarray(found), expected, err_msg=name)
    else:
        assert type(found) is type(expected), name
        assert found == expected, name
