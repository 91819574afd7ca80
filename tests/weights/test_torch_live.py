"""The reader against PyTorch itself: the same bits for everything that torch.save writes."""

import pytest

from flowad_jax.weights import store, torch_file
from tests.weights import lightning_like
from tests.weights.test_torch_file import check_lightning

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.live

KINDS = (
    *("float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "complex128"),
    *("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "bool"),
)
FORMATS = {
    "zip": {},
    "zip, protocol 4": {"pickle_protocol": 4},
    "zip, protocol 5": {"pickle_protocol": 5},
    "legacy": {"_use_new_zipfile_serialization": False},
}


def content():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(2, 2, 5, 5, generator=generator)).sum().backward()
    optimizer.step()
    plain = {"epoch": 3, "rate": 0.1, "name": "größe", "none": None, "yes": True, 5: [1, (2,)]}
    return {
        "state_dict": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter": torch.nn.Parameter(base),
        "views": [base, base.T, base[1:, ::2], base[2], base[0, 0], base.expand(3, 4, 6)],
        "kinds": tuple((base * 3).to(getattr(torch, kind)) for kind in KINDS),
        "empty": [torch.empty(0), torch.empty(2, 0, 3)],
        "scalar": torch.tensor(2.5),
        "plain": plain,
        "size": base.shape,
        "large": 2**70,
    }


def assert_same(found, expected):
    if isinstance(expected, torch.Tensor):
        assert str(found.dtype) == str(expected.dtype).removeprefix("torch.")
        assert found.shape == tuple(expected.shape)
        flat = expected.detach().contiguous().flatten()
        assert found.tobytes() == bytes(flat.view(torch.uint8).tolist())
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list | tuple):
        assert type(found) is (list if isinstance(expected, list) else tuple)
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected, strict=True):
            assert_same(mine, theirs)
    else:
        assert type(found) is type(expected)
        assert found == expected


@pytest.mark.parametrize("form", FORMATS)
def test_reads_what_torch_writes(tmp_path, form):
    path = tmp_path / "a.pth"
    saved = content()
    torch.save(saved, path, **FORMATS[form])
    assert_same(torch_file.read(path), saved)
    if form == "zip":  # torch.load warns of protocol 5 and fails on legacy files with uint16
        assert_same(torch_file.read(path), torch.load(path))


@pytest.mark.parametrize("form", FORMATS)
def test_reads_a_checkpoint_with_objects(tmp_path, form):
    path, protocol = tmp_path / "a.ckpt", FORMATS[form].get("pickle_protocol", 2)
    module = torch.nn.Linear(2, 3)
    with lightning_like.pretended_modules():
        saved = lightning_like.content(module.state_dict(), protocol)
        saved["hyper_parameters"]["module"] = module
        saved["hyper_parameters"]["device"] = torch.device("cpu")
        torch.save(saved, path, **FORMATS[form])
    found = torch_file.read(path)
    assert found["hyper_parameters"].pop("device").name == "torch.device"
    assert found["hyper_parameters"].pop("module").name == "torch.nn.modules.linear.Linear"
    check_lightning(found, protocol)
    assert_same(torch_file.state_dict(path), dict(module.state_dict()))


def test_reads_a_zip_without_checksums(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    torch.save(content()["state_dict"], tmp_path / "a.pth")
    torch.serialization.set_crc32_options(before)
    assert_same(torch_file.state_dict(tmp_path / "a.pth"), torch.load(tmp_path / "a.pth"))


def test_reads_the_embedded_file_and_safetensors_of_torch(tmp_path):
    from safetensors.torch import save_file

    path = store.embedded("efficientnet_lite.efficientnet_lite0")
    assert_same(torch_file.state_dict(path), torch.load(path))
    path = tmp_path / "a.safetensors"
    tensors = {"a": torch.ones(2, 3).bfloat16(), "b": torch.tensor([True]), "c": torch.tensor(1)}
    save_file(tensors, path)
    found = torch_file.state_dict(path)
    assert_same({key: found[key] for key in tensors}, tensors)


def test_whole_modules_and_lazy_or_sparse_tensors_are_no_state_dict(tmp_path, refused):
    path = tmp_path / "a.pth"
    torch.save(torch.nn.Linear(1, 1), path)
    refused(path, "holds a Foreign", "model.state_dict()", reader=torch_file.state_dict)
    torch.save({"a": torch.ones(2, dtype=torch.complex64).conj()}, path)
    refused(path, "conjugate", reader=torch_file.state_dict)
    torch.save({"a": torch.eye(3).to_sparse()}, path)
    refused(path, "no flat state dict", "'a': Foreign", reader=torch_file.state_dict)
