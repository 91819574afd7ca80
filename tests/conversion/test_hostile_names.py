"""What a stranger's file calls its tensors reaches neither the terminal nor a file but as text."""

import json

import numpy as np
import pytest

from flowad_jax.conversion import detector, encoder, explain
from flowad_jax.conversion.settings import settle
from flowad_jax.encoders import export, resnet
from flowad_jax.errors import UserError
from flowad_jax.weights import layout, store, torch_writer
from tests.conversion.conftest import recipe
from tests.encoders import maps
from tests.test_errors import HOSTILE
from tests.weights import craft
from tests.weights.test_references import content

TINY = "resnet.resnet_tiny"
# What a pickle can hold: text is UTF-8 there, and keys of dicts are short.
NAMES = {
    name: text[:9000] for name, text in HOSTILE.items() if text.isascii() or "\udcff" not in text
}


def shows(text, lines=None):
    for line in text.split("\n"):
        assert line.isprintable()
        assert len(line) < 5000
    assert lines is None or text.count("\n") == lines - 1


@pytest.fixture
def encoder_file(tmp_path):
    def write(name):
        tensors = layout.to_torch(maps.random_variables(TINY), resnet.torch_key)
        torch_writer.write(tmp_path / "a.pth", tensors | {name: np.ones(3, np.float32)})
        return tmp_path / "a.pth"

    return write


@pytest.mark.parametrize("name", NAMES)
def test_tensors_of_an_encoder(encoder_file, name):
    path = encoder_file(NAMES[name])
    with pytest.raises(layout.ConversionError) as caught:
        encoder.convert(TINY, str(path), None)
    shows(str(caught.value), lines=1)
    shows(caught.value.lists(), lines=2)
    shows(export.explained(TINY, path))


@pytest.mark.parametrize("name", NAMES)
def test_entries_of_a_detector(tmp_path, name, image_root):
    path = tmp_path / "a.pt"
    found = content("cflow") | {NAMES[name]: {NAMES[name]: np.ones(3, np.float32)}}
    torch_writer.write(path, found)
    shows(explain.explained(path))
    read = detector.read(path)
    assert len(read.left_out) == 1
    settled = settle(read, recipe("cflow", image_root))
    shows(detector.described(read, settled))
    shows(json.dumps(detector._card(read, settled, path, {"params": {}})))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["cflow", "sanflow", "msflow", "ssnf"])
def test_tensors_of_a_detector(tmp_path, method, name):
    found = content(method)
    for key in ("decoder_state_dict", "parallel_flows", "variance", "fusion_flow"):
        for state in found.get(key, ()) if isinstance(found.get(key), list) else ():
            state[NAMES[name]] = np.ones(3, np.float32)
    if method == "ssnf":
        found[NAMES[name]] = np.ones(3, np.float32)
    torch_writer.write(tmp_path / "a.pt", found)
    with pytest.raises(UserError) as caught:
        explain.explained(tmp_path / "a.pt")
    shows(str(caught.value), lines=1)


@pytest.mark.parametrize("backbone", [*NAMES.values(), "os:system", "../x", "x.y:z"])
def test_the_encoder_that_a_file_names(backbone, image_root):
    decoder = content("cflow")["decoder_state_dict"][0]
    state = {f"model.decoders.0.{key}": value for key, value in decoder.items()}
    state["model.encoder.feature_extractor.conv1.weight"] = np.ones(3)
    found = {"state_dict": state, "hyper_parameters": {"backbone": backbone}}
    read = detector.detectors.recognise(found, "a.ckpt")
    with pytest.raises(UserError) as caught:
        settle(read, recipe("cflow", image_root))
    shows(str(caught.value), lines=1)


def test_an_architecture_that_a_card_names(tmp_path):
    store.save(tmp_path / "a.npz", {"params": {"a": np.ones(3)}}, {"architecture": "a\x1b[2J\n"})
    with pytest.raises(UserError) as caught:
        encoder.back(TINY, str(tmp_path / "a.npz"), None)
    shows(str(caught.value), lines=1)
    assert store.card_path(tmp_path / "a.npz").read_text().count("\x1b") == 0


def test_a_list_in_itself_is_shown_once(tmp_path):
    """A list of itself a hundred thousand times was walked ten thousand million times."""
    body = b"}(" + b"".join(craft.text(key) + value for key, value in _cyclic().items()) + b"u"
    path = craft.zip_file(tmp_path / "a.pt", body, {"s": bytes(24)})
    with pytest.raises(UserError):
        explain.explained(path)
    loop = [np.ones(3, np.float32)]
    loop.extend([loop] * 100_000)
    assert len(list(explain._tensors({"a": loop, "b": {"c": loop}}, "", set()))) == 1


def _cyclic():
    return {"decoder_state_dict": b"]q\x00(" + b"h\x00" * 100_000 + b"e"}
