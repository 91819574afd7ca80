import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from flowad_jax.weights import layout


class Net(nn.Module):
    """Every kind of layer that changes its layout on the way."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 5), name="conv")(x)
        x = nn.Conv(4, (3, 3), feature_group_count=4, use_bias=False, name="depthwise")(x)
        x = nn.Conv(8, (1, 1), feature_group_count=2, name="grouped")(x)
        x = nn.BatchNorm(use_running_average=True, name="bn")(x)
        return nn.Dense(3, name="head")(x)


IGNORABLE = (r"fc\..*", r".*\.num_batches_tracked")
NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
IMAGE = np.random.default_rng(0).standard_normal((2, 6, 7, 2)).astype(np.float32)


def torch_key(path):
    return f"{path[1]}.{NAMES.get(path[2], path[2])}"


@pytest.fixture(scope="module")
def target():
    return jax.eval_shape(Net().init, jax.random.key(0), IMAGE)


@pytest.fixture
def flat(target):
    rng = np.random.default_rng(1)
    tensors = {
        rule.key: rng.standard_normal(rule.torch_shape).astype(np.float32)
        for rule in layout.rules(target, torch_key)
    }
    return tensors | {"bn.running_var": abs(tensors["bn.running_var"])}


def convert(flat, target):
    return layout.to_flax(flat, target, torch_key, IGNORABLE, "net.pth")


def test_rules_tell_both_layouts(target):
    table = {rule.key: rule for rule in layout.rules(target, torch_key)}
    assert len(table) == 11
    shapes = {key: (rule.shape, rule.torch_shape) for key, rule in table.items()}
    assert shapes["conv.weight"] == ((3, 5, 2, 4), (4, 2, 3, 5))
    assert shapes["depthwise.weight"] == ((3, 3, 1, 4), (4, 1, 3, 3))
    assert shapes["grouped.weight"] == ((1, 1, 2, 8), (8, 2, 1, 1))
    assert shapes["head.weight"] == ((8, 3), (3, 8))
    assert shapes["bn.running_var"] == ((8,), (8,))
    assert table["bn.running_var"].path == ("batch_stats", "bn", "var")


def test_values_land_where_the_layers_expect_them(flat, target):
    variables = convert(flat, target)["params"]
    weight, kernel = flat["conv.weight"], variables["conv"]["kernel"]
    for out, into, row, column in np.ndindex(weight.shape):
        assert kernel[row, column, into, out] == weight[out, into, row, column]
    np.testing.assert_array_equal(variables["head"]["kernel"], flat["head.weight"].T)
    np.testing.assert_array_equal(variables["bn"]["scale"], flat["bn.weight"])


@pytest.mark.live
def test_the_converted_network_computes_the_same(flat, target):
    torch = pytest.importorskip("torch")
    model = torch.nn.ModuleDict(
        {
            "conv": torch.nn.Conv2d(2, 4, (3, 5), padding=(1, 2)),
            "depthwise": torch.nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
            "grouped": torch.nn.Conv2d(4, 8, 1, groups=2),
            "bn": torch.nn.BatchNorm2d(8),
            "head": torch.nn.Linear(8, 3),
        }
    ).eval()
    flat["bn.running_var"] = np.abs(flat["bn.running_var"])
    tensors = {key: torch.from_numpy(value) for key, value in flat.items()}
    model.load_state_dict(tensors | {"bn.num_batches_tracked": torch.tensor(0)})
    x = torch.from_numpy(IMAGE).permute(0, 3, 1, 2)
    with torch.no_grad():
        for name in ("conv", "depthwise", "grouped", "bn"):
            x = model[name](x)
        expected = model["head"](x.permute(0, 2, 3, 1)).numpy()
    variables = convert(flat, target)
    np.testing.assert_allclose(Net().apply(variables, IMAGE), expected, rtol=1e-4, atol=1e-4)


def test_there_and_back(flat, target):
    variables = convert(flat, target)
    back = layout.to_torch(variables, torch_key)
    assert back.keys() == flat.keys()
    for key, tensor in flat.items():
        np.testing.assert_array_equal(back[key], tensor)
        assert np.shares_memory(back[key], tensor)
    again = layout.to_torch(jax.tree.map(jnp.asarray, variables), torch_key)
    np.testing.assert_array_equal(again["conv.weight"], flat["conv.weight"])


def test_results_are_float32_and_copied_only_where_they_have_to_be(flat, target):
    flat["head.weight"] = flat["head.weight"].astype(np.float64)
    flat["bn.weight"] = flat["bn.weight"].astype(ml_dtypes.bfloat16)
    flat["bn.bias"] = np.broadcast_to(np.float32(2), (8,))
    for path, leaf in flatten_dict(convert(flat, target)).items():
        key = torch_key(path)
        assert leaf.dtype == np.float32, path
        assert np.shares_memory(leaf, flat[key]) == (flat[key].dtype == np.float32), path


def test_ignorable_tensors_may_be_left_over(flat, target):
    extra = {"fc.weight": np.ones((2, 2)), "bn.num_batches_tracked": np.array(3)}
    np.testing.assert_array_equal(
        convert(flat | extra, target)["params"]["bn"]["bias"], flat["bn.bias"]
    )
    with pytest.raises(layout.ConversionError) as caught:
        convert(flat | {"xfc.weight": np.ones(1), "fc": np.ones(1)}, target)
    assert caught.value.unused == ["xfc.weight", "fc"]


def test_all_faults_are_listed_at_once(flat, target):
    del flat["conv.weight"], flat["bn.running_mean"]
    flat["head.bias"] = np.zeros(4, np.float32)
    flat["head.weight"] = flat["head.weight"].T
    flat["bn.bias"] = flat["bn.bias"].astype(np.complex64)
    flat |= {f"layer.{index}": np.zeros(1, np.float32) for index in range(5)}
    with pytest.raises(layout.ConversionError) as caught:
        convert(flat, target)
    error = caught.value
    assert sorted(error.missing) == [
        "batch_stats/bn/mean <- bn.running_mean",
        "params/conv/kernel <- conv.weight",
    ]
    assert sorted(error.mismatched) == [
        "bn.bias: (8,) complex64, needed (8,) float32",
        "head.bias: (4,) float32, needed (3,) float32",
        "head.weight: (8, 3) float32, needed (3, 8) float32",
    ]
    assert error.unused == [f"layer.{index}" for index in range(5)]
    message = str(error)
    assert "\n" not in message
    for word in ("net.pth", "2 variables", "3 tensors", "5 tensors", "layer.2, ..."):
        assert word in message
    assert "layer.3" not in message
    for entry in error.missing + error.mismatched + error.unused:
        assert f"\n  {entry}" in error.lists()
