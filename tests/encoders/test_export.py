"""From PyTorch's file to ours and back, for every family; and the table of a conversion."""

from importlib.util import find_spec

import numpy as np
import pytest

from flowad_jax.encoders import architecture, export, load
from flowad_jax.errors import UserError
from flowad_jax.weights import explain, store, torch_file, torch_writer
from peers import encoders as peers

TINY = (
    "resnet.resnet_tiny",
    "efficientnet_lite.efficientnet_lite_tiny",
    "efficientnet.efficientnet_tiny",
    "mobilenet_v3.mobilenet_v3_tiny",
    "cait.cait_tiny",
    "vit.vit_tiny",
    "vit.dinov2_tiny",
)
RESNET = TINY[0]


def state(name):
    """Random tensors under torch's names."""
    rules = export.rules(architecture.find(name))
    return {rule.key: peers.random_tensor(rule.key, rule.torch_shape) for rule in rules}


def there_and_back(name, source, folder, suffix=".pth"):
    """Converts a file to ours and back, and returns the last one's path and what it lacks."""
    ours, back = folder / "ours.safetensors", folder / f"back{suffix}"
    store.save(ours, *load.convert_checkpoint(name, source))
    tensors, left_out = export.export_checkpoint(name, ours)
    torch_writer.write(back, tensors)
    return back, left_out


@pytest.mark.parametrize(
    ("name", "suffix"), [(RESNET, ".safetensors"), *((name, ".pth") for name in TINY)]
)
def test_there_and_back_gives_the_same_tensors(tmp_path, name, suffix):
    tensors = state(name)
    torch_writer.write(tmp_path / "a.pth", tensors)
    back, _ = there_and_back(name, tmp_path / "a.pth", tmp_path, suffix)
    found = torch_file.state_dict(back)
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert found[key].dtype == tensor.dtype
        np.testing.assert_array_equal(found[key], tensor)


def test_the_head_is_left_out_and_named(tmp_path):
    head = {"fc.bias": np.ones(3, np.float32), "bn1.num_batches_tracked": np.array(3)}
    torch_writer.write(tmp_path / "a.pth", state(RESNET) | head)
    back, left_out = there_and_back(RESNET, tmp_path / "a.pth", tmp_path)
    assert torch_file.state_dict(back).keys() == state(RESNET).keys()
    assert left_out == (r"fc\..*", r".*\.num_batches_tracked")


def test_only_files_of_ours_and_of_the_named_network_go_back(tmp_path):
    torch_writer.write(tmp_path / "a.safetensors", state(RESNET))
    with pytest.raises(UserError, match=r"a\.safetensors: has no card"):
        export.export_checkpoint(RESNET, tmp_path / "a.safetensors")
    store.save(tmp_path / "b.npz", *load.convert_checkpoint(RESNET, tmp_path / "a.safetensors"))
    with pytest.raises(UserError, match=r"holds weights of 'resnet\.resnet_tiny', not of 'cait"):
        export.export_checkpoint("cait.cait_tiny", tmp_path / "b.npz")


def test_views_are_not_copied(tmp_path):
    torch_writer.write(tmp_path / "a.pth", state(RESNET))
    store.save(tmp_path / "b.npz", *load.convert_checkpoint(RESNET, tmp_path / "a.pth"))
    tensors, _ = export.export_checkpoint(RESNET, tmp_path / "b.npz")
    kernel = tensors["conv1.weight"]
    assert kernel.shape == (8, 3, 7, 7)
    assert not kernel.flags.c_contiguous


def lines(text):
    """Lines with single blanks in place of columns."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_table_needs_no_file():
    found = lines(export.explained(RESNET))
    assert found[0] == "our variable our shape torch key torch shape"
    assert "params/conv1/kernel (7, 7, 3, 8) conv1.weight (8, 3, 7, 7)" in found
    assert "batch_stats/bn1/mean (8,) bn1.running_mean (8,)" in found
    assert found[-2:] == [r"fc\..*", r".*\.num_batches_tracked"]


def test_the_table_marks_what_a_file_holds(tmp_path):
    tensors = state(RESNET) | {"fc.bias": np.ones(3), "extra\x1b": np.ones(3)}
    tensors["bn1.bias"] = np.ones(9, np.float32)
    del tensors["bn1.weight"]
    torch_writer.write(tmp_path / "a.pth", tensors)
    found = lines(export.explained(RESNET, tmp_path / "a.pth"))
    assert "params/conv1/kernel (7, 7, 3, 8) conv1.weight (8, 3, 7, 7) yes" in found
    assert "params/bn1/scale (8,) bn1.weight (8,) missing" in found
    assert "params/bn1/bias (8,) bn1.bias (8,) (9,) float32: does not fit" in found
    assert found[-4:] == [
        *("1 tensors of the file are ignored:", "fc.bias"),
        "1 tensors of the file are of no use, which stops a conversion:",
        r"extra\x1b",
    ]


def test_a_network_that_uses_all_says_so():
    assert explain.table([*export.rules(architecture.find(RESNET))], ()).endswith("\n  none")


@pytest.mark.live
@pytest.mark.parametrize(
    "name",
    [
        "resnet.resnet18",
        "mobilenet_v3.mobilenet_v3_small",
        "efficientnet_lite.efficientnet_lite0",
        "efficientnet.tf_efficientnet_b5",
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
    torch_writer.write(tmp_path / "a.pth", tensors)
    back, _ = there_and_back(name, tmp_path / "a.pth", tmp_path)
    loaded = torch.load(back, weights_only=True)
    head = {key for key in tensors if export.left_out(encoder, key)}
    # The counters are not missed: PyTorch fills them in where a file states no version.
    missing, unexpected = model.load_state_dict(loaded, strict=False, assign=True)
    assert not unexpected
    assert set(missing) == head
    for key in tensors.keys() - head:
        np.testing.assert_array_equal(model.state_dict()[key].numpy(), tensors[key])
