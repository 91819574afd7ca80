"""Checkpoints written by PyTorch and FrEIA, of every dialect, become the same detectors."""

from importlib.util import find_spec

import jax
import numpy as np
import pytest

from flowad_jax.encoders import architecture, weight_files
from flowad_jax.errors import UserError
from flowad_jax.lookup import find
from flowad_jax.types import Batch
from flowad_jax.weights import detectors, torch_file, torch_writer
from peers import detectors as peers
from peers import encoders, verification

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        find_spec("torch") is None or find_spec("FrEIA") is None, reason="FrEIA is not installed"
    ),
]

CHANNELS = {"cflow": (6, 9), "sanflow": (6, 9), "msflow": (6, 8), "ssnf": (8,), "anomalib": (6, 9)}
SMALL = {
    **{name: {"condition": 4, "blocks": 3} for name in ("cflow", "sanflow", "anomalib")},
    "msflow": {"condition": 4, "blocks": (2, 3)},
    "ssnf": {"blocks": 3, "hidden": 8, "heads": 2},
}
CASES = [
    *[("cflow", version) for version in ("0.2", "tag_v0.2", "2023-08")],
    *[("sanflow", version) for version in ("0.2", "tag_v0.2", "2023-06", "2023-08")],
    *[(dialect, version) for dialect in ("msflow", "ssnf") for version in ("0.2", "2023-08")],
    ("anomalib", "0.2"),
]
CLAMP = {"2023-08": "tanh_ratio"}


def maps_of(dialect):
    """Feature maps of two images, and the images themselves where the method sees them."""
    rng = np.random.default_rng(0)
    maps = [
        rng.standard_normal((2, side, side, count), np.float32)
        for side, count in zip((8, 4), CHANNELS[dialect], strict=False)
    ]
    image = rng.standard_normal((2, 32, 32, 3), np.float32)
    return [*maps, image] if dialect == "sanflow" else maps


@pytest.fixture(name="saved", params=CASES, ids=" ".join)
def _saved(request, tmp_path):
    import torch

    dialect, version = request.param
    made = peers.build(dialect, CHANNELS[dialect], freia=version, **SMALL[dialect])
    encoder = (
        {"conv1.weight": torch.ones(1, 2)} if dialect in ("cflow", "sanflow", "anomalib") else None
    )
    torch.save(made.content(encoder), tmp_path / "theirs.pt")
    content = torch_file.read(tmp_path / "theirs.pt")
    return dialect, version, made, content


def log_probs(found, kind, maps):
    options = {**found.options, "clamp_kind": kind}
    if found.dialect == "ssnf":
        options["heads"] = SMALL["ssnf"]["heads"]
    method = find("flowad_jax.methods", found.method)(**options)
    scales = len(CHANNELS[found.dialect])
    batch = Batch(tuple(maps[:scales]), *maps[scales:])
    return method, [np.asarray(x) for x in jax.jit(method.log_probs)(found.variables, batch)]


def test_likelihoods_and_maps_agree(saved):
    dialect, version, made, content = saved
    found = detectors.detect_format(content, "theirs.pt")
    assert found.dialect == dialect
    kind = CLAMP.get(version, "tanh")
    assert kind in found.clamp_kinds
    maps = maps_of(dialect)
    theirs = made.log_probs(maps)
    method, ours = log_probs(found, kind, maps)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-5)
        assert np.std(other) > 1e-2
    pixels = [method.aggregate(scales, (32, 32)).pixel for scales in (ours, theirs)]
    np.testing.assert_allclose(*pixels, atol=1e-4)
    other = {"tanh": "tanh_ratio", "tanh_ratio": "tanh"}[kind]
    _, wrong = log_probs(found, other, maps)
    assert max(np.abs(a - b).max() for a, b in zip(wrong, theirs, strict=True)) > 1e-2


def test_pytorch_loads_it_again(saved):
    """What ``--verify`` builds from a file says what the one who saved it said."""
    dialect, version, made, content = saved
    method = {**SMALL[dialect], "clamp_kind": CLAMP.get(version, "tanh"), "permutation": "hard"}
    if dialect == "cflow":
        method["permutation"] = "soft"
    channels = CHANNELS[dialect]
    again = verification.detector(dialect, content, channels, method)
    maps = maps_of(dialect)
    for one, other in zip(again(maps), made.log_probs(maps), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_way_back_is_taken_by_pytorch(saved, tmp_path):
    import torch

    dialect, version, made, content = saved
    write = detectors.dialects()[dialect].write
    if write is None:
        pytest.skip("nothing goes back to anomalib")
    found = detectors.detect_format(content, "theirs.pt")
    back = write(found.variables, {}, version.startswith("2023"))
    torch_writer.write(tmp_path / "back.pt", back)
    loaded = torch.load(tmp_path / "back.pt", weights_only=True)
    plain = "0.2" if version == "tag_v0.2" else version
    channels = CHANNELS[dialect]
    again = peers.load(dialect, loaded, channels, freia=plain, **SMALL[dialect])
    maps = maps_of(dialect)
    for one, other in zip(again.log_probs(maps), made.log_probs(maps), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_ssnf_with_the_newer_names_and_without_prefix():
    made = peers.build("ssnf", (8,), parametrized=True, **SMALL["ssnf"])
    content = {name: tensor.numpy() for name, tensor in made.content(prefix="").items()}
    assert any("parametrizations.weight.original0" in name for name in content)
    found = detectors.detect_format(content, "theirs.pt")
    (maps,) = maps_of("ssnf")
    _, ours = log_probs(found, "tanh", [maps])
    np.testing.assert_allclose(ours[0], made.log_probs([maps])[0], atol=1e-5)


def test_trained_permutations_are_refused():
    """As FrEIA stores them: without w_perm."""
    import FrEIA.framework as framework
    import FrEIA.modules as modules
    from torch import nn

    chain = framework.SequenceINN(6)
    chain.append(
        modules.AllInOneBlock,
        subnet_constructor=lambda wide, out: nn.Sequential(
            nn.Linear(wide, 12), nn.ReLU(), nn.Linear(12, out)
        ),
        learned_householder_permutation=2,
    )
    decoder = {name: tensor.numpy() for name, tensor in chain.state_dict().items()}
    assert "module_list.0.w_0" in decoder
    assert "module_list.0.w_perm" not in decoder
    content = {"encoder_state_dict": {"a": np.ones(1)}, "decoder_state_dict": [decoder]}
    with pytest.raises(UserError, match=r"theirs\.pt: 'module_list.0.vk_householder' is a trained"):
        detectors.detect_format(content, "theirs.pt")


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
def test_the_encoder_of_anomalib_is_ours_up_to_its_last_layer():
    encoders.torchvision()  # timm imports it
    import timm

    model = timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(2, 3))
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert not any(name.startswith("layer4") for name in tensors)
    converted = weight_files.convert_tensors(
        architecture.find("resnet.resnet18"), tensors, "a", deepest=2
    )
    kernel = converted["params"]["layer3_1"]["conv2"]["kernel"]
    expected = tensors["layer3.1.conv2.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, expected)
