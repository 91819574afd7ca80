"""What a stranger's file calls its tensors reaches neither the terminal nor a file but as text."""

import json

import numpy as np
import pytest

from flowad_jax.conversion import detector, encoder
from flowad_jax.conversion.settings import described, merge_settings
from flowad_jax.encoders import weight_files
from flowad_jax.errors import UserError
from flowad_jax.weights import detectors, layout, store, torch_writer
from tests.conversion.conftest import recipe
from tests.weights.references import TINY, content, encoder_tensors
from tests.weights.test_dialects import NAMES, shows


@pytest.mark.parametrize("name", NAMES)
def test_tensors_of_an_encoder(tmp_path, name):
    path = tmp_path / "a.pth"
    torch_writer.write(path, encoder_tensors() | {NAMES[name]: np.ones(3, np.float32)})
    with pytest.raises(layout.ConversionError) as caught:
        encoder.convert(TINY, str(path), None)
    shows(str(caught.value), lines=1)
    shows(caught.value.lists(), lines=2)
    shows(weight_files.conversion_table(TINY, path))


@pytest.mark.parametrize("name", NAMES)
def test_entries_of_a_detector(tmp_path, name, images):
    path = tmp_path / "a.pt"
    extra = {NAMES[name]: {NAMES[name]: np.ones(3, np.float32)}}
    torch_writer.write(path, content("cflow") | extra)
    read = detector.read(path)
    assert len(read.left_out) == 1
    merged = merge_settings(read, recipe("cflow", images))
    shows(described(read, merged))
    shows(json.dumps(detector._card(read, merged, path, {"params": {}})))


@pytest.mark.parametrize("backbone", [*NAMES.values(), "os:system", "../x", "x.y:z"])
def test_the_encoder_that_a_file_names(backbone, images):
    found = content("anomalib") | {"hyper_parameters": {"backbone": backbone}}
    read = detectors.detect_format(found, "a.ckpt")
    with pytest.raises(UserError) as caught:
        merge_settings(read, recipe("cflow", images))
    shows(str(caught.value), lines=1)


def test_an_architecture_that_a_card_names(tmp_path):
    store.save(tmp_path / "a.npz", {"params": {"a": np.ones(3)}}, {"architecture": "a\x1b[2J\n"})
    with pytest.raises(UserError) as caught:
        encoder.export(TINY, str(tmp_path / "a.npz"), None)
    shows(str(caught.value), lines=1)
    assert store.card_path(tmp_path / "a.npz").read_text().count("\x1b") == 0
