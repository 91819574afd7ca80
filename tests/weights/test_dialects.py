"""Checkpoints of every code base: converted and back to the last bit, or refused in one line."""

import contextlib
import itertools

import numpy as np
import pytest

from flowad_jax.conversion import explain
from flowad_jax.errors import UserError
from flowad_jax.weights import detectors, torch_file, torch_writer
from flowad_jax.weights.dialects import msflow, sanflow
from flowad_jax.weights.state_dicts import unwrapped
from tests.test_errors import HOSTILE
from tests.weights import craft
from tests.weights.references import (
    METHODS,
    as_indices,
    assert_same,
    content,
    encoder_tensors,
    states,
    stored,
    wrapped,
)

ORDER = np.array([2, 0, 3, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fusion, key: fusion | {key: np.ones(())}, "has shape .* no order of channels"),
        (lambda fusion, key: fusion | {key: np.ones((2, 2))}, "has shape .* no order of channels"),
        (
            lambda fusion, key: {k: v for k, v in fusion.items() if ".perm" not in k},
            r"has channel orders of lengths \[\], but its scales have",
        ),
        (
            lambda fusion, key: {k: v for k, v in fusion.items() if "conv_s.0.bias" not in k},
            "an MSFlow fusion flow has no tensor '.*conv_s.0.bias'",
        ),
        (lambda fusion, key: fusion | {"extra": ORDER}, "has unknown tensors: 'extra'"),
    ],
)
def test_faults_of_a_fusion_flow(change, message):
    found = content("msflow")
    parallel, fusion = found["parallel_flows"], found["fusion_flow"]
    for key in [key for key in fusion if ".perm" in key][:2]:
        with pytest.raises(UserError, match=message):
            msflow.flows(parallel, change(fusion, key))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weight", None, "network has no tensor 'layer1."),
        ("weight", ORDER, r"has shape \(4,\), needed"),
        ("\x1b[2J", ORDER, "has unknown tensors: '"),
    ],
)
def test_faults_of_a_variance_network(name, value, message):
    state = stored("sanflow_snet") | {f"layer1.{name}": value}
    with pytest.raises(UserError, match=message) as caught:
        sanflow.variance_net({key: value for key, value in state.items() if value is not None})
    assert "\x1b" not in str(caught.value)


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


@pytest.mark.parametrize("indices", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_there_and_back_is_the_same_to_the_last_bit(method, indices, tmp_path):
    """Files with matrices also become files with indices; rotations have none."""
    matrices = content(method)
    expected = matrices
    if indices and method == "ssnf":
        expected = as_indices(matrices)
    elif indices and method != "cflow":
        chains = "parallel_flows" if method == "msflow" else "decoder_state_dict"
        expected = matrices | {chains: [as_indices(state) for state in matrices[chains]]}
    for source in (matrices, expected):
        found = detectors.detect_format(source, "theirs.pt")
        back = detectors.dialects()[method].write(found.variables, found.encoder, indices)
        torch_writer.write(tmp_path / "back.pt", back)
        for again in (back, torch_file.read(tmp_path / "back.pt")):
            assert_same(again, in_scale_order(expected))


def test_big_tensors_are_views():
    """A detector of some GB is in memory once; only one-hot matrices have to be made."""
    expected = content("cflow")
    found = detectors.detect_format(expected, "theirs.pt")
    back = detectors.dialects()["cflow"].write(found.variables, None, False)
    (before,), (after,) = expected["decoder_state_dict"], back["decoder_state_dict"]
    for key, tensor in after.items():  # an inverse is the transpose of the other
        assert np.shares_memory(tensor, before[key.removesuffix("_inv")])


def test_ssnf_has_one_scale():
    found = detectors.detect_format(content("ssnf"), "theirs.pt").variables
    two = {kind: {f"scale{i}": tree["scale0"] for i in (0, 1)} for kind, tree in found.items()}
    with pytest.raises(UserError, match="SSNF's code has one scale, this detector has 2"):
        detectors.dialects()["ssnf"].write(two, None, False)


OUTSIDE = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def test_wrappers_of_an_encoder():
    tensors = encoder_tensors()
    for depth in (1, 2, 3):
        for prefix in itertools.product(OUTSIDE[: 4 if depth < 3 else 2], repeat=depth):
            assert_same(unwrapped(wrapped(tensors, ".".join(prefix) + ".")), tensors)
    inside = {
        "module.layer1.0._orig_mod.conv1.weight": 1,
        "module.layer1._orig_mod.0.conv2._orig_mod.weight": 2,
        "n_averaged": 7,
    }
    assert unwrapped(inside) == {"layer1.0.conv1.weight": 1, "layer1.0.conv2.weight": 2}
    similar = {"my_orig_mod.weight": 1, "module.weight": 2, "modules.weight": 3, "x._orig_mod": 4}
    assert unwrapped(similar) == similar
    deep = {f"{'module.' * 1000}{index}": index for index in range(300)}  # takes no time
    assert unwrapped(deep) == {str(index): index for index in range(300)}
    with pytest.raises(UserError, match=r"'a\.weight' twice"):
        unwrapped({"a.weight": 1, "_orig_mod.a.weight": 2})


def around(value, prefix):
    if isinstance(value, list):
        return [around(part, prefix) for part in value]
    return wrapped(value, prefix) if isinstance(value, dict) else value


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("method", [*METHODS, "anomalib"])
def test_wrappers_of_a_detector(method, prefix):
    plain = content(method)
    whole = {key: around(value, prefix) for key, value in plain.items()}
    found = detectors.detect_format(wrapped(plain, prefix) if method == "ssnf" else whole, "a.pt")
    expected = detectors.detect_format(plain, "a.pt")
    assert found.dialect == method
    assert_same(found.variables, expected.variables)
    assert_same(found.encoder, expected.encoder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.x": ORDER}, "unknown tensor 'model.x' in anomalib's model"),
        ({"model.decoders.2.x": ORDER}, r"has decoders \[0, 2\], not all from 0 on"),
        ({"model.encoder.feature_extractor.conv1.weight": None}, "has no tensors model.encoder."),
    ],
)
def test_faults_of_a_model_of_anomalib(change, message):
    state = content("anomalib")["state_dict"] | change
    state = {key: value for key, value in state.items() if value is not None}
    with pytest.raises(UserError, match=f"a.ckpt: {message}"):
        detectors.detect_format({"state_dict": state}, "a.ckpt")


def test_settings_of_anomalib():
    given = {"clamp_alpha": 1.5, "backbone": "resnet18", "layers": ["layer2"], "lr": 1e-4}
    given |= {"optimizer": None}
    found = detectors.detect_format(content("anomalib") | {"hyper_parameters": given}, "a.ckpt")
    assert found.options["clamp"] == 1.5
    assert found.about == {"backbone": "resnet18", "layers": ["layer2"]}
    given = {"clamp_alpha": "1", "backbone": 3, "layers": [None]}
    found = detectors.detect_format(content("anomalib") | {"hyper_parameters": given}, "a.ckpt")
    assert "clamp" not in found.options
    assert found.about == {}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "negative"])
@pytest.mark.parametrize("method", METHODS)
def test_weights_that_are_no_numbers_are_refused(method, value):
    checked = 0
    for index in range(len(states(content(method)))):
        found = content(method)
        state = states(found)[index]
        key = max(key for key in state if state[key].dtype == np.float32)
        message = "holds NaN or infinite"
        if value == "negative":
            key = next((key for key in state if key.endswith("running_var")), None)
            message = "holds negative variances"
        if key:
            state[key] = np.array(state[key])
            state[key].flat[0] = -1 if value == "negative" else value
            with pytest.raises(UserError, match=f"a.pt: .*{message}") as caught:
                detectors.detect_format(found, "a.pt")
            assert repr(key) in str(caught.value)
            checked += 1
    counts = {"cflow": 1, "sanflow": 3, "msflow": 4, "ssnf": 1}
    assert checked == (counts[method] if value != "negative" else method == "sanflow")


CHANGES = (
    lambda tensor: tensor[None],
    lambda tensor: tensor.ravel()[:0],
    lambda tensor: np.zeros((), tensor.dtype),
    lambda tensor: np.zeros((2, 3, 5, 7), tensor.dtype),
    lambda tensor: tensor.astype(np.complex64),
    lambda tensor: tensor.astype(bool),
)


@pytest.mark.parametrize("method", METHODS)
def test_tensors_of_other_shapes_are_one_line(method):
    """Every third tensor, in several shapes and types, is converted or refused."""
    found, refused = content(method), 0
    for state in states(found):
        for key in list(state)[::3]:
            right = state[key]
            for change in CHANGES:
                state[key] = change(right)
                refused += 1
                with contextlib.suppress(UserError):
                    detectors.detect_format(found, "a.pt")
                    refused -= 1
            state[key] = right
    assert detectors.detect_format(found, "a.pt").method == method
    assert refused > 20


# What a pickle can hold: text is UTF-8 there, and keys of dicts are short.
NAMES = {name: text[:9000] for name, text in HOSTILE.items() if "\udcff" not in text}


def shows(text, lines=None):
    for line in text.split("\n"):
        assert line.isprintable()
        assert len(line) < 5000
    assert lines is None or text.count("\n") == lines - 1


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_are_shown_as_text(tmp_path, name):
    extra = {NAMES[name]: np.ones(3, np.float32)}
    for method in METHODS:
        found = content(method)
        for state in states(found):
            state |= extra
        torch_writer.write(tmp_path / "a.pt", found)
        with pytest.raises(UserError) as caught:
            explain.explained(tmp_path / "a.pt")
        shows(str(caught.value), lines=1)
    torch_writer.write(tmp_path / "a.pt", content("cflow") | {NAMES[name]: extra})
    shows(explain.explained(tmp_path / "a.pt"))


def test_a_list_in_itself_is_shown_once(tmp_path):
    """A list of itself a hundred thousand times was walked ten thousand million times."""
    cyclic = b"]q\x00(" + b"h\x00" * 100_000 + b"e"
    path = craft.zip_file(tmp_path / "a.pt", craft.mapping({"decoder_state_dict": cyclic}))
    with pytest.raises(UserError, match="no state dict of names and tensors"):
        explain.explained(path)
    loop = [np.ones(3, np.float32)]
    loop.extend([loop] * 100_000)
    assert len(list(explain._tensors({"a": loop, "b": {"c": loop}}, "", set()))) == 1
