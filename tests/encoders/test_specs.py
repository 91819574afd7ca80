import jax
import numpy as np
import pytest

from flowad_jax.encoders import load
from flowad_jax.encoders.taps import choose_taps
from flowad_jax.errors import UserError
from flowad_jax.weights import layout
from tests.encoders import maps


@pytest.mark.parametrize("name", maps.NAMES)
def test_every_variant_keeps_its_promise(name):
    module, family = maps.every_tap(name)
    spec = family.SPECS[name.split(".")[1]]
    assert spec.name == name
    image = jax.ShapeDtypeStruct((2, 101, 66, 3), np.float32)
    taps = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], image)
    assert [tap.shape for tap in taps] == [
        (2, -(-101 // stride), -(-66 // stride), channels)
        for channels, stride in zip(spec.channels, spec.strides, strict=True)
    ]
    assert list(spec.strides) == sorted(spec.strides)


@pytest.mark.parametrize("family", maps.FAMILIES.values())
def test_every_variant_is_exported(family):
    assert list(family.EXPORTS) == list(family.SPECS)
    assert all(callable(getattr(family, variant)) for variant in family.EXPORTS)


@pytest.mark.parametrize("name", [n for n in maps.NAMES if "tiny" in n])
def test_tiny_variants_keep_their_promise_when_run(name):
    image = maps.image(70, 99, batch=2)
    encoder = load.load(name, "random")
    taps = jax.jit(encoder.apply)(encoder.variables, image)
    for tap, index in zip(taps, encoder.taps, strict=True):
        stride = encoder.spec.strides[index]
        assert tap.shape == (2, -(-70 // stride), -(-99 // stride), encoder.spec.channels[index])
        assert np.isfinite(tap).all()
        assert np.std(tap) > 1e-4  # squeeze-and-excitation shrinks random maps


@pytest.mark.parametrize("name", [n for n in maps.NAMES if "tiny" in n])
def test_a_tap_does_not_depend_on_the_other_taps(name):
    image = maps.image(64, 64)
    every = load.load(name, "random", taps=tuple(range(4)))
    some = load.load(name, "random", taps=(0, 2))
    expected = jax.jit(every.apply)(every.variables, image)
    maps.assert_close(jax.jit(some.apply)(some.variables, image), (expected[0], expected[2]))
    assert len(jax.tree.leaves(some.variables)) < len(jax.tree.leaves(every.variables))


def test_nothing_is_computed_behind_the_deepest_tap():
    module, family = maps.every_tap("resnet.resnet_tiny")
    shallow = family.resnet_tiny(taps=(1,))
    variables = maps.random_variables("resnet.resnet_tiny")
    cost = [
        jax.jit(net.apply).lower(variables, maps.image(64, 64)).cost_analysis()["flops"]
        for net in (shallow, module)
    ]
    assert cost[0] < 0.9 * cost[1]


@pytest.mark.parametrize("size", [(32, 96), (40, 32)])
def test_reflect_padding_names_an_image_that_is_too_small(size):
    encoder = load.load("resnet.resnet_tiny", "random")
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]} px.*more than 32 px"):
        encoder.apply(encoder.variables, maps.image(*size))
    zeros = load.load("resnet.resnet_tiny", "random", padding="zeros")
    taps = jax.eval_shape(zeros.apply, zeros.variables, maps.image(*size))
    assert min(taps[-1].shape[1:3]) == 1


def test_reflect_padding_takes_the_smallest_image_that_a_shallow_tap_allows():
    encoder = load.load("resnet.resnet_tiny", "random", taps=(0,))
    (tap,) = jax.jit(encoder.apply)(encoder.variables, maps.image(5, 5))
    assert tap.shape == (1, 2, 2, 8)
    with pytest.raises(UserError, match="4 x 5 px"):
        encoder.apply(encoder.variables, maps.image(4, 5))


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("mobilenet_v3.mobilenet_v3_large", (5, 11, 14)),
        ("mobilenet_v3.mobilenet_v3_small", (2, 7, 10)),
        ("resnet.wide_resnet50_2", (1, 2, 3)),
    ],
)
def test_the_strides_of_the_recipes_choose_the_taps_of_the_paper(name, taps):
    family, variant = name.split(".")
    assert choose_taps(maps.FAMILIES[family].SPECS[variant], None, (8, 16, 32)) == taps


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mobilenet_v3.mobilenet_v3_tiny", "middle"),
        ("efficientnet.efficientnet_tiny", "projection"),
    ],
)
def test_an_unknown_place_of_a_tap_is_named(name, place):
    with pytest.raises(UserError, match=rf"tap_at='{place}': .*norm, block"):
        load.load(name, "random", tap_at=place)


def test_an_encoder_without_blocks_to_tap_says_so():
    with pytest.raises(UserError, match=r"tap_at='norm': 'resnet\.resnet_tiny' has no such option"):
        load.load("resnet.resnet_tiny", "random", tap_at="norm")


def test_files_of_the_cflow_reference_lack_a_prefix():
    module, family = maps.every_tap("mobilenet_v3.mobilenet_v3_tiny")
    keys = [rule.key for rule in layout.rules(maps.abstract_variables(module), family.torch_key)]
    bare = {key.removeprefix("features."): np.zeros(1) for key in keys}
    assert sorted(family.from_dialect(bare)) == sorted(keys)
    complete = dict.fromkeys([*keys, "classifier.0.weight"], np.zeros(1))
    assert family.from_dialect(complete).keys() == complete.keys()


@pytest.mark.parametrize(("width", "depth"), [(1.0, 1.1), (1.1, 1.2)])
def test_compound_scaling_leaves_the_ends_alone(width, depth):
    from flowad_jax.encoders import efficientnet_lite as lite

    stages = lite.scaled(width, depth)
    assert [stages[0].blocks, stages[-1].blocks] == [1, 1]
    assert [stage.blocks for stage in stages[1:-1]] == [3, 3, 4, 4, 5]
    assert all(stage.channels % 8 == 0 for stage in stages)
