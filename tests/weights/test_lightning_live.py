"""A checkpoint that PyTorch itself wrote, with objects of classes that nobody here has."""

import sys

import pytest

from flowad_jax.weights import torch_file
from tests.weights import lightning_like, test_foreign

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.live

FORMATS = {
    "zip": {},
    "zip, protocol 4": {"pickle_protocol": 4},
    "legacy": {"_use_new_zipfile_serialization": False},
}


@pytest.mark.parametrize("form", FORMATS)
def test_reads_a_checkpoint_with_objects(tmp_path, refused, form):
    path, protocol = tmp_path / "a.ckpt", FORMATS[form].get("pickle_protocol", 2)
    module = torch.nn.Linear(2, 3)
    with lightning_like.pretended_modules():
        saved = lightning_like.content(module.state_dict(), protocol)
        saved["hyper_parameters"]["module"] = module
        saved["hyper_parameters"]["device"] = torch.device("cpu")
        torch.save(saved, path, **FORMATS[form])
    refused(path, "asks for ")
    found = torch_file.read(path, foreign=True)
    assert "anomalib" not in sys.modules
    hyper = found["hyper_parameters"]
    assert hyper.pop("device").arguments == ("cpu",)
    kept = hyper.pop("module")
    assert kept.name == "torch.nn.modules.linear.Linear"
    assert kept.state["_parameters"]["weight"].shape == (3, 2)
    test_foreign.check(found, protocol)
    weights = torch_file.state_dict(path)
    assert list(weights) == ["weight", "bias"]
    assert weights["weight"].tolist() == module.weight.tolist()
