"""What every variant promises and keeps, and how its options are refused."""

import functools

import jax
import numpy as np
import pytest

from flowad_jax.encoders import architecture, load, mobile
from flowad_jax.encoders.taps import choose_taps
from flowad_jax.errors import UserError
from tests.encoders import maps

RESNET = "resnet.resnet_tiny"


@functools.cache
def map_shapes(factory, settings, depth, size):
    """Of all taps; variants that differ in their weights alone are traced once."""
    del settings  # the key of the cache, as partials are compared by identity
    module = factory.func(*factory.args, **factory.keywords, taps=tuple(range(depth)))
    image = jax.ShapeDtypeStruct((2, *size, 3), np.float32)
    found = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], image)
    return [tap.shape for tap in found]


@pytest.mark.parametrize("name", maps.NAMES)
def test_every_variant_keeps_its_promise(name):
    _, factory, spec = architecture.find(name)
    size = (101, 66) if spec.multiple == 1 else (3 * spec.multiple, 5 * spec.multiple)
    found = map_shapes(factory, str(factory), len(spec.channels), size)
    assert spec.name == name
    assert found == [
        (2, -(-size[0] // stride), -(-size[1] // stride), channels)
        for channels, stride in zip(spec.channels, spec.strides, strict=True)
    ]
    assert list(spec.strides) == sorted(spec.strides)
    if len(set(spec.strides)) > 1:
        assert [spec.strides[t] for t in choose_taps(spec, None, (4, 8, 16))] == [4, 8, 16]


@pytest.mark.parametrize("name", maps.TINY)
def test_a_tap_does_not_depend_on_the_other_taps(name):
    every = load.load(name, "random", taps=(0, 1, 2, 3))
    some = load.load(name, "random", taps=(0, 2))
    image = maps.image(70, 56) if every.spec.multiple == 14 else maps.image(64, 96)
    expected = jax.jit(every.apply)(every.variables, image)
    maps.assert_close(jax.jit(some.apply)(some.variables, image), (expected[0], expected[2]))
    assert len(jax.tree.leaves(some.variables)) < len(jax.tree.leaves(every.variables))
    assert all(np.std(tap) > 1e-4 for tap in expected)  # squeeze-and-excitation shrinks them


def test_nothing_is_computed_behind_the_deepest_tap():
    shallow = architecture.find(RESNET).factory(taps=(1,))
    variables = maps.random_variables(RESNET)
    cost = [
        jax.jit(net.apply).lower(variables, maps.image(64, 64)).cost_analysis()["flops"]
        for net in (shallow, maps.every_tap(RESNET))
    ]
    assert cost[0] < 0.9 * cost[1]


@pytest.mark.parametrize(
    ("taps", "size", "smallest"), [(None, (32, 96), 32), (None, (40, 32), 32), ((0,), (4, 5), 4)]
)
def test_reflect_padding_names_an_image_that_is_too_small(taps, size, smallest):
    encoder = load.load(RESNET, "random", taps=taps)
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]} px.*more than {smallest} px"):
        encoder.apply(encoder.variables, maps.image(*size))
    enough = jax.eval_shape(encoder.apply, encoder.variables, maps.image(smallest + 1, 97))
    assert enough[-1].shape[1] == 2
    zeros = load.load(RESNET, "random", taps=taps, padding="zeros")
    found = jax.eval_shape(zeros.apply, zeros.variables, maps.image(*size))
    assert min(found[-1].shape[1:3]) == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (RESNET, {"tap_at": "norm"}, r"tap_at='norm': 'resnet\.resnet_tiny' has no such option"),
        (RESNET, {"final_norm": True}, r"encoder\.final_norm=True: 'resnet\.resnet_tiny' has no"),
        (RESNET, {"padding": "circular"}, "'circular' is unknown to ResNets"),
        ("efficientnet_lite.efficientnet_lite_tiny", {"padding": "circular"}, "'circular' is unk"),
        ("cait.cait_tiny", {"padding": "zeros"}, r"encoder\.padding='zeros': 'cait\.cait_tiny' ha"),
        ("mobilenet_v3.mobilenet_v3_tiny", {"tap_at": "middle"}, "'middle': .*projection, norm, b"),
        ("efficientnet.efficientnet_tiny", {"tap_at": "projection"}, "'projection': .*norm, block"),
        (RESNET, {"pool": "mean"}, r"encoder\.pool='mean' is unknown: choices are avg, max"),
        (RESNET, {"pool": "avgs"}, "did you mean 'avg'"),
        (RESNET, {"compute": "float16"}, r"encoder\.compute='float16': choices|did you mean"),
    ],
)
def test_a_wrong_option_is_named_before_the_weights_are_read(name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        load.load(name, "nowhere.pth", taps=(0,), **options)
    assert "\n" not in str(caught.value)


def test_files_of_the_cflow_reference_lack_a_prefix():
    family = architecture.find("mobilenet_v3.mobilenet_v3_tiny").family
    keys = list(maps.torch_state("mobilenet_v3.mobilenet_v3_tiny"))
    bare = {key.removeprefix("features."): np.zeros(1) for key in keys}
    assert sorted(family.from_dialect(bare)) == sorted(keys)
    complete = dict.fromkeys([*keys, "classifier.0.weight"], np.zeros(1))
    assert family.from_dialect(complete).keys() == complete.keys()


@pytest.mark.parametrize(("width", "depth"), [(1.0, 1.1), (1.1, 1.2)])
def test_compound_scaling_of_lite_leaves_the_ends_alone(width, depth):
    stages = mobile.scaled(width, depth, keep_ends=True)
    assert [stage.blocks for stage in stages] == [1, 3, 3, 4, 4, 5, 1]
    assert all(stage.channels % 8 == 0 for stage in stages)
    assert [stage.blocks for stage in mobile.scaled(width, 1.5)] == [2, 3, 3, 5, 5, 6, 2]
