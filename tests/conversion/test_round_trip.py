"""A detector goes to the authors' format and comes back as the same detector."""

import numpy as np
import pytest

import flowad_jax
from flowad_jax.conversion import detector, export
from flowad_jax.conversion.settings import changed
from flowad_jax.conversion.verify import compare
from flowad_jax.errors import UserError
from flowad_jax.weights import torch_file, torch_writer
from peers import verification
from tests.conversion.conftest import ANOMALIB, SMALL, card_of, quiet, recipe, write_detector

CLAMPS = {
    **{"cflow": "tanh_ratio", "sanflow": "tanh", "msflow": "tanh_ratio", "ssnf": "tanh"},
    **dict.fromkeys(ANOMALIB, "tanh"),
}

pytestmark = pytest.mark.whole


def same_predictions(one, other, images):
    files = sorted((images / "part" / "test").rglob("*.png"))
    before, after = (flowad_jax.load(path).predict(files) for path in (one, other))
    np.testing.assert_allclose([p.score for p in after], [p.score for p in before], rtol=1e-5)
    assert [p.p_value for p in after] == [p.p_value for p in before]
    for first, second in zip(after, before, strict=True):
        np.testing.assert_allclose(first.map, second.map, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", SMALL)
def test_there_and_back(method, make, images, tmp_path):
    clamp_kind, lines = CLAMPS[method], []
    # anomalib's encoders pad with zeros.
    padding = {"padding": "zeros"} if method in ANOMALIB else {}
    config, original, checkpoint = make(method, clamp_kind=clamp_kind, **padding)
    detector.convert(checkpoint, config, tmp_path / "run", clamp_kind, say=lines.append)
    same_predictions(original, tmp_path / "run", images)
    card = card_of(tmp_path / "run")
    assert card["clamp"]["kind"] == clamp_kind
    assert card["sizes"]["bytes_before"] > card["sizes"]["bytes"]
    assert f"a detector of {method}" in lines[0]


def test_anomalib(make, images, tmp_path):
    """Its encoder ends at the deepest layer in use, pads with zeros, and is named in the file."""
    config, original, checkpoint = make("cflow", permutation="hard", padding="zeros")
    theirs = torch_file.read(checkpoint)
    tensors = {
        f"model.encoder.feature_extractor.{name}": tensor
        for name, tensor in theirs["encoder_state_dict"].items()
    }
    for scale, decoder in enumerate(theirs["decoder_state_dict"]):
        tensors |= {f"model.decoders.{scale}.{name}": tensor for name, tensor in decoder.items()}
    tensors["image_threshold.value"] = np.array(0.5, np.float32)
    assert not any("layer4" in name for name in tensors)
    content = {"state_dict": tensors, "hyper_parameters": {"backbone": "resnet_tiny", "lr": 1e-4}}
    torch_writer.write(tmp_path / "theirs.pt", content)
    config = changed(config, **{"encoder.padding": "reflect", "encoder.name": "resnet.resnet18"})
    lines = []
    detector.convert(tmp_path / "theirs.pt", config, tmp_path / "run", say=lines.append)
    text = "\n".join(lines)
    assert "encoder.padding = zeros (the recipe says reflect)" in text
    assert "encoder.name = resnet.resnet_tiny (the recipe says resnet.resnet18)" in text
    assert "clamp tanh: the permutations are those of FrEIA before June 2023" in text
    assert card_of(tmp_path / "run")["left_out"] == ["image_threshold.value"]
    same_predictions(original, tmp_path / "run", images)


def test_only_what_the_authors_have_goes_back(make, tmp_path):
    _, original, _ = make("sanflow", legacy=False, per_scale=True)
    with pytest.raises(UserError, match="per_scale=True: SANFlow's code has one variance"):
        export.export(original, str(tmp_path / "theirs.pt"), say=quiet)
    with pytest.raises(UserError, match=r"a detector is nested; name a \.pt or \.pth file"):
        export.export(original, str(tmp_path / "theirs.safetensors"), say=quiet)


@pytest.mark.live
@pytest.mark.parametrize("method", ANOMALIB)
def test_pytorch_says_the_same_of_what_goes_back(method, make, tmp_path):
    """As --verify has it, with a checkpoint whose every tensor is away from its start."""
    for package in ("torch", "FrEIA"):
        pytest.importorskip(package)
    config, _, checkpoint = make(method, clamp_kind="tanh", padding="zeros")

    def verify(found, system, variables):
        content, options = torch_file.read(checkpoint), system.config.method.to_dict()
        peer = verification.detector(found.dialect, content, found.channels, options)
        return compare(found, system, variables, peer)

    card = detector.convert(checkpoint, config, tmp_path / "run", verify=verify, say=quiet)
    assert max(card["verified"]["log_likelihood"]) < 1e-4


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("gaussian", {}, r"gaussian.*no code in PyTorch has such a detector"),
        ("fastflow", {"train.whiten": True}, r"train\.whiten=True: no code in PyTorch"),
        ("fastflow", {"method.clamp_kind": "volume_preserving"}, r"no version of FrEIA has it"),
    ],
)
def test_what_no_code_in_pytorch_has_does_not_go_back(method, settings, message, images, tmp_path):
    write_detector(tmp_path / "run", changed(recipe(method, images), **settings))
    with pytest.raises(UserError, match=message):
        export.export(tmp_path / "run", str(tmp_path / "theirs.pt"), say=quiet)
