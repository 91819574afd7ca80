"""The comparison with PyTorch, layer by layer: what it finds, and what it may not overlook."""

import functools
import sys
from importlib.util import find_spec

import jax
import numpy as np
import pytest

from flowad_jax.encoders import architecture, load, verify
from flowad_jax.errors import UserError
from flowad_jax.weights import store, torch_writer
from peers import encoders as peers
from peers import verification
from tests.encoders import maps

RESNET = "resnet.resnet_tiny"


@functools.cache
def own_outputs(name):
    encoder = architecture.find(name)
    side = verify.side(encoder.spec)
    return verify.outputs(encoder, maps.random_variables(name), maps.image(side, side))


@pytest.fixture
def compare(monkeypatch):
    """Our own outputs, under PyTorch's names and changed, play the other network."""

    def run(name, change=lambda outputs: outputs):
        encoder, (taps, found) = architecture.find(name), own_outputs(name)
        monkeypatch.setattr(verify, "outputs", lambda *_: (taps, found))
        key = encoder.family.torch_key
        named = {key(("params", *path, "x")).removesuffix(".x"): a for path, a in found.items()}
        return verify.compare(encoder, {}, lambda *_: change(named))

    return run


@pytest.mark.parametrize(
    ("name", "taps", "left_out", "last"),
    [
        (RESNET, [f"layer{i}.0" for i in (1, 2, 3, 4)], "", "layer4.0"),
        ("efficientnet.efficientnet_tiny", [f"blocks.{i}.{int(i == 1)}" for i in range(7)], "", 0),
        ("vit.dinov2_tiny", [f"blocks.{i}" for i in range(4)], "cls_token", "norm"),
        ("cait.cait_tiny", [f"blocks.{i}" for i in range(4)], "blocks.3.attn.proj_w.bias", "norm"),
    ],
)
def test_every_layer_and_every_tap_is_compared(compare, name, taps, left_out, last):
    report = compare(name)
    assert report.worst == 0
    assert list(report.taps) == taps
    assert list(report.layers)[-1] == (last or taps[-1])
    assert bool(left_out) == bool(report.not_compared)
    assert not left_out or left_out in report.not_compared
    verify.check(report, "a.pth")


def test_the_first_layer_that_differs_is_named(compare):
    def shifted(outputs):
        for name in ("layer3.0.conv1", "layer2.0.bn1"):
            outputs[name] = outputs[name] + np.float32(2e-4) * np.abs(outputs[name]).max()
        return outputs

    report = compare(RESNET, shifted)
    with pytest.raises(UserError, match=r"^a\.pth: layer 'layer2\.0\.bn1' .*2\.0e-04.*first of 2"):
        verify.check(report, "a.pth")
    rows = verify.table(report, 2).splitlines()
    assert {rows[1].split()[0], rows[2].split()[0]} == {"layer2.0.bn1", "layer3.0.conv1"}
    assert [row.split()[-2:] for row in rows[3:]] == [["tap", str(i)] for i in range(4)]
    card = report.card()
    assert card["image"] == [64, 64]
    assert card["worst"] == pytest.approx(2e-4, rel=0.1)
    assert card["layers"]["conv1"] == 0


def test_layers_that_the_peer_lacks_are_listed_and_none_at_all_is_a_fault(compare):
    report = compare(RESNET, lambda outputs: {"conv1": outputs["conv1"]})
    assert list(report.layers) == ["conv1"]
    assert "layer4.0.bn2.running_var" in report.not_compared
    with pytest.raises(UserError, match="none of our layers"):
        verify.check(compare(RESNET, lambda outputs: {}), "a.pth")


@pytest.mark.parametrize(
    ("ours", "theirs", "error"),
    [
        (np.ones((1, 2, 3)), np.concatenate([np.zeros((1, 1, 3)), np.ones((1, 2, 3))], 1), 0),
        (np.ones((1, 2)), np.full((1, 2), 2.0), 0.5),
        (np.zeros(2), np.zeros(2), 0),
        (np.ones(2), np.zeros(2), np.inf),
        (np.ones((1, 2)), np.ones((2, 1)), np.inf),
    ],
)
def test_difference(ours, theirs, error):
    assert verify.difference(ours, theirs) == error


def test_no_number_is_no_agreement():
    report = verify.Report({"a": 0.0, "b": float("nan")}, ("a",), (), (1, 1))
    with pytest.raises(UserError, match="layer 'b'"):
        verify.check(report, "a.pth")


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match=r"pip install torch efficientnet-lite-pytorch$"):
        verification.file_state("efficientnet_lite_pytorch.efficientnet-lite0", tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"no PyTorch network 'x\.y'"):
        verification.file_state("x.y", tmp_path / "a.pth")


@pytest.mark.live
class TestLive:
    @pytest.fixture(autouse=True)
    def _free_memory(self):
        yield
        jax.clear_caches()

    def against_torch(self, name, path, change=lambda variables: variables):
        encoder = architecture.find(name)
        torch = pytest.importorskip("torch")
        if find_spec(encoder.spec.peer.partition(".")[0]) is None:
            pytest.skip("the PyTorch peer is not installed")
        if not path.exists():
            with torch.device("meta"):
                model = peers.build(encoder.spec.peer)
            torch_writer.write(path, peers.random_state(model))
        variables, _ = load.convert_checkpoint(name, path)
        tensors = verify.trunk(encoder, verification.file_state(encoder.spec.peer, path))
        peer = verification.network(encoder.spec.peer, verify.side(encoder.spec), tensors)
        return verify.compare(encoder, change(variables), peer)

    @pytest.mark.parametrize(
        ("name", "layers"),
        [
            ("resnet.resnet18", 48),
            pytest.param("mobilenet_v3.mobilenet_v3_small", 104, marks=pytest.mark.whole),
            pytest.param("cait.cait_xxs24_224", 194, marks=pytest.mark.whole),
            ("vit.dinov2_vits14_reg", 122),
        ],
    )
    def test_families_agree(self, tmp_path, name, layers):
        report = self.against_torch(name, tmp_path / "a.safetensors")
        assert len(report.layers) == layers
        assert report.worst < 1e-5
        assert len(report.taps) == len(architecture.find(name).spec.channels)

    def test_norms_of_timm_are_compared_before_their_activation(self, tmp_path):
        """On a small network of the layers that B5 consists of."""
        torch = pytest.importorskip("torch")
        if find_spec("timm") is None:
            pytest.skip("timm is not installed")
        peers.torchvision()
        from timm.models._efficientnet_builder import decode_arch_def
        from timm.models.efficientnet import EfficientNet

        encoder = architecture.find("efficientnet.efficientnet_tiny")
        stages = [
            [
                f"{'ds' if s.expansion == 1 else 'ir'}_r{s.blocks}_k{s.kernel}_s{s.stride}"
                f"_e{s.expansion}_c{s.channels}_se0.25"
            ]
            for s in encoder.factory.args[0]
        ]
        model = EfficientNet(
            decode_arch_def(stages), stem_size=16, pad_type="same", act_layer=torch.nn.SiLU
        )
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 1e-3  # as in the networks that came from TensorFlow
        state = peers.random_state(model)
        peers.fill(model, state)
        variables = maps.converted(encoder.spec.name, state)
        report = verify.compare(encoder, variables, functools.partial(peers.outputs, model))
        assert {"bn1", "blocks.1.0.bn2", "blocks.1.0.se", "blocks.6.0"} <= report.layers.keys()
        assert report.not_compared == ()
        assert report.worst < 1e-5

    def test_exchanged_tensors_are_found(self):
        def exchanged(variables):
            block = variables["params"]["blocks_4"]["bn1"]
            block["scale"], block["bias"] = block["bias"], block["scale"]
            return variables

        name = "efficientnet_lite.efficientnet_lite0"
        report = self.against_torch(name, store.embedded(name), exchanged)
        with pytest.raises(UserError, match=r"layer '_blocks\.4\._bn1' differs"):
            verify.check(report, "a.pth")
