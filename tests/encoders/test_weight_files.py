"""From PyTorch's file to ours and back, for every family; and the table of a conversion."""

from importlib.util import find_spec

import numpy as np
import pytest

from flowad_jax.encoders import architecture, load, weight_files
from flowad_jax.errors import UserError
from flowad_jax.weights import layout, store, torch_file, torch_writer
from peers import encoders as peers
from tests.encoders import maps

RESNET = "resnet.resnet_tiny"


def there_and_back(name, tensors, folder, suffix=".pth"):
    """Converts tensors to a file of ours and back; returns what comes back and what it lacks."""
    source, ours, back = folder / "a.pth", folder / "ours.safetensors", folder / f"back{suffix}"
    torch_writer.write(source, tensors)
    store.save(ours, *load.convert_checkpoint(name, source))
    found, left_out = weight_files.export_checkpoint(name, ours)
    torch_writer.write(back, found)
    return back, left_out


@pytest.mark.parametrize(
    ("name", "suffix"), [(RESNET, ".safetensors"), *((name, ".pth") for name in maps.TINY)]
)
def test_there_and_back_gives_the_same_tensors(tmp_path, name, suffix):
    tensors = maps.torch_state(name)
    found = torch_file.state_dict(there_and_back(name, tensors, tmp_path, suffix)[0])
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert found[key].dtype == tensor.dtype
        np.testing.assert_array_equal(found[key], tensor)


def test_the_head_is_left_out_and_named(tmp_path):
    head = {"fc.bias": np.ones(3, np.float32), "bn1.num_batches_tracked": np.array(3)}
    back, left_out = there_and_back(RESNET, maps.torch_state(RESNET) | head, tmp_path)
    assert torch_file.state_dict(back).keys() == maps.torch_state(RESNET).keys()
    assert left_out == (r"fc\..*", r".*\.num_batches_tracked")


def test_only_files_of_ours_and_of_the_named_network_go_back(tmp_path):
    torch_writer.write(tmp_path / "a.safetensors", maps.torch_state(RESNET))
    with pytest.raises(UserError, match=r"a\.safetensors: has no card"):
        weight_files.export_checkpoint(RESNET, tmp_path / "a.safetensors")
    store.save(tmp_path / "b.npz", *load.convert_checkpoint(RESNET, tmp_path / "a.safetensors"))
    with pytest.raises(UserError, match=r"holds weights of 'resnet\.resnet_tiny', not of 'cait"):
        weight_files.export_checkpoint("cait.cait_tiny", tmp_path / "b.npz")
    kernel = weight_files.export_checkpoint(RESNET, tmp_path / "b.npz")[0]["conv1.weight"]
    assert kernel.shape == (8, 3, 7, 7)
    assert not kernel.flags.c_contiguous  # a view, not a copy


def lines(text):
    """Lines with single blanks in place of columns."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_table_needs_no_file():
    found = lines(weight_files.conversion_table(RESNET))
    assert found[0] == "our variable our shape torch key torch shape"
    assert "params/conv1/kernel (7, 7, 3, 8) conv1.weight (8, 3, 7, 7)" in found
    assert "batch_stats/bn1/mean (8,) bn1.running_mean (8,)" in found
    assert found[-2:] == [r"fc\..*", r".*\.num_batches_tracked"]


def test_the_table_marks_what_a_file_holds(tmp_path):
    tensors = maps.torch_state(RESNET) | {"fc.bias": np.ones(3), "extra\x1b": np.ones(3)}
    tensors["bn1.bias"] = np.ones(9, np.float32)
    del tensors["bn1.weight"]
    torch_writer.write(tmp_path / "a.pth", tensors)
    found = lines(weight_files.conversion_table(RESNET, tmp_path / "a.pth"))
    assert "params/conv1/kernel (7, 7, 3, 8) conv1.weight (8, 3, 7, 7) yes" in found
    assert "params/bn1/scale (8,) bn1.weight (8,) missing" in found
    assert "params/bn1/bias (8,) bn1.bias (8,) (9,) float32: does not fit" in found
    assert found[-4:] == [
        *("1 tensors of the file are ignored:", "fc.bias"),
        "1 tensors of the file are of no use, which stops a conversion:",
        r"extra\x1b",
    ]


def test_a_network_that_uses_all_says_so():
    assert layout.table(architecture.rules(architecture.find(RESNET)), ()).endswith("\n  none")


@pytest.mark.live
@pytest.mark.parametrize(
    "name",
    [
        "resnet.resnet18",
        "mobilenet_v3.mobilenet_v3_small",
        "efficientnet_lite.efficientnet_lite0",
        pytest.param("efficientnet.tf_efficientnet_b5", marks=pytest.mark.whole),
        "cait.cait_xxs24_224",
        "vit.dinov2_vits14",
    ],
)
def test_pytorch_misses_only_what_is_left_out(tmp_path, name):
    torch = pytest.importorskip("torch")
    encoder = architecture.find(name)
    if find_spec(encoder.spec.peer.partition(".")[0]) is None:
        pytest.skip("the PyTorch peer is not installed")
    with torch.device("meta"):  # names and shapes; values would take seconds
        model = peers.build(encoder.spec.peer)
    tensors = peers.random_state(model)
    loaded = torch.load(there_and_back(name, tensors, tmp_path)[0], weights_only=True)
    head = {key for key in tensors if architecture.left_out(encoder, key)}
    # The counters are not missed: PyTorch fills them in where a file states no version.
    missing, unexpected = model.load_state_dict(loaded, strict=False, assign=True)
    assert not unexpected
    assert set(missing) == head
    for key in tensors.keys() - head:
        np.testing.assert_array_equal(model.state_dict()[key].numpy(), tensors[key])
