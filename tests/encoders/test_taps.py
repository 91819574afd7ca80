import pytest

from flowad_jax.encoders import load
from flowad_jax.encoders.taps import choose_taps
from flowad_jax.errors import UserError
from tests.encoders import maps

TINY = "resnet.resnet_tiny"


@pytest.mark.parametrize("taps", [(1, 0), (1, 1), (0, 4), (-1,), (), (1.0,), ("1",), (True,), 7])
def test_wrong_taps_are_named(taps):
    with pytest.raises(UserError, match=r"taps .* of encoder 'resnet.resnet_tiny'.* 0 to 3"):
        load.load(TINY, "random", taps=taps)


@pytest.mark.parametrize(
    ("name", "strides", "taps", "channels"),
    [
        ("resnet.wide_resnet50_2", (4, 8, 16), (0, 1, 2), [256, 512, 1024]),
        ("resnet.wide_resnet50_2", (8, 16, 32), (1, 2, 3), [512, 1024, 2048]),
        ("efficientnet_lite.efficientnet_lite0", (4, 8, 16), (1, 2, 4), [24, 40, 112]),
        ("efficientnet_lite.efficientnet_lite0", (8, 16, 32), (2, 4, 6), [40, 112, 320]),
        ("efficientnet_lite.efficientnet_lite0", [2, 32], (0, 6), [16, 320]),
        ("efficientnet_lite.efficientnet_lite0", 16, (4,), [112]),
    ],
)
def test_a_stride_is_its_deepest_map(name, strides, taps, channels):
    family, variant = name.split(".")
    spec = maps.FAMILIES[family].SPECS[variant]
    assert choose_taps(spec, None, strides) == taps
    assert [spec.channels[tap] for tap in taps] == channels


def test_taps_win_over_strides():
    assert load.load(TINY, "random", strides=(4, 16)).taps == (0, 2)
    assert load.load(TINY, "random", taps=(1,), strides=(4, 16)).taps == (1,)


@pytest.mark.parametrize(
    "strides", [(2, 8), (8, 4), (8, 8), (), (8.0,), ("8",), "8", (True,), 5, None, (None,)]
)
def test_wrong_strides_are_named_with_a_way_out(strides):
    message = r"encoder\.strides .*'resnet.resnet_tiny' has .* 4, 8, 16, 32: .*encoder\.taps"
    with pytest.raises(UserError, match=message) as info:
        load.load(TINY, "random", strides=strides)
    assert "\n" not in str(info.value)
