"""MobileNetV3 as torchvision defines it, for its ImageNet weights.

Howard et al., "Searching for MobileNetV3" (ICCV 2019), tables 1 and 2. A tap belongs to one block.
CFLOW-AD reads it at an unusual place, the bare output of the block's last convolution:
``tap_at="projection"``, before its BatchNorm and before the shortcut is added. ``"norm"`` is
behind the BatchNorm, ``"block"`` behind the addition.
"""

import itertools
import operator
import re
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn

from flowad_jax.encoders import conventions, mobile
from flowad_jax.ops.convolution import Conv
from flowad_jax.types import EncoderSpec, Published

TAPS_AT = ("projection", "norm", "block")
IGNORABLE = (r"classifier\..*", r"features\.(12|16)\.[01]\..*", r".*\.num_batches_tracked")
torch_key = conventions.torch_key

_SQUEEZE = partial(
    mobile.SqueezeExcite, names=("fc1", "fc2"), activation=nn.relu, gate=nn.hard_sigmoid
)


class Row(NamedTuple):
    """One line of the paper's tables: a block."""

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    hard_swish: bool
    stride: int


_LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
_SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)
_TINY = (
    Row(3, 16, 8, True, False, 2),
    Row(3, 24, 16, False, True, 2),
    Row(5, 32, 16, True, True, 1),
    Row(3, 32, 24, False, True, 2),
    Row(5, 48, 32, True, True, 2),
)


class MobileNetV3(nn.Module):
    """The network up to its deepest tap, in evaluation mode.

    Attributes:
      rows: measures of its blocks.
      taps: blocks whose maps are returned, 0 for the first.
      tap_at: one of `TAPS_AT`.
    """

    rows: tuple[Row, ...]
    taps: tuple[int, ...]
    tap_at: str = "projection"

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        """Maps (B, H, W, 3) to the tapped (B, ceil(H / stride), ceil(W / stride), C).

        Raises:
          UserError: ``tap_at`` is unknown.
        """
        mobile.check_tap_at(self.tap_at, TAPS_AT)
        x = Conv(16, (3, 3), strides=2, padding=1, name="features_0_0")(image)
        x = nn.hard_swish(mobile.BatchNorm(name="features_0_1")(x))
        maps = []
        for index, row in enumerate(self.rows[: max(self.taps) + 1]):
            found = _block(row, widened=row.expanded != x.shape[-1], name=f"features_{index + 1}")(
                x
            )
            x = found["block"]
            maps.append(found[self.tap_at])
        return tuple(maps[tap] for tap in self.taps)


def _block(row: Row, widened: bool, name: str) -> nn.Module:
    """Makes a block with torchvision's numbers: a layer that is left out has none."""
    numbers = itertools.count()
    names = [f"block_{next(numbers)}" for _ in range(1 + widened)]
    squeeze = None
    if row.squeeze:
        squeezed = mobile.round_to_8(row.expanded // 4)
        squeeze = partial(_SQUEEZE, squeezed, name=f"block_{next(numbers)}")
    names.append(f"block_{next(numbers)}")
    return mobile.InvertedResidual(
        kernel=row.kernel,
        stride=row.stride,
        inner=row.expanded,
        channels=row.channels,
        layers=tuple((f"{layer}_0", f"{layer}_1") for layer in names),
        activation=nn.hard_swish if row.hard_swish else nn.relu,
        squeeze=squeeze,
        padding=row.kernel // 2,  # on both sides at every stride, as torch does
        name=name,
    )


def from_dialect(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives torchvision's names to what CFLOW-AD's code saved: the features alone, unnamed."""
    bare = all(re.match(r"\d+\.", name) for name in tensors)
    return {f"features.{name}" if bare else name: t for name, t in tensors.items()}


mobilenet_v3_large = partial(MobileNetV3, _LARGE)
mobilenet_v3_small = partial(MobileNetV3, _SMALL)
# For tests: 12 thousand parameters, no published weights.
mobilenet_v3_tiny = partial(MobileNetV3, _TINY)


def _spec(variant: str, rows: tuple[Row, ...], weights: Published | None = None) -> EncoderSpec:
    channels = tuple(row.channels for row in rows)
    _, *strides = itertools.accumulate((row.stride for row in rows), operator.mul, initial=2)
    peer, name = f"torchvision.{variant}" if weights else "", f"mobilenet_v3.{variant}"
    return EncoderSpec(name, channels, tuple(strides), *conventions.IMAGENET, weights, peer)


_LARGE_FILE = conventions.of_torchvision("mobilenet_v3_large", "8738ca79", 22.1)
_SMALL_FILE = conventions.of_torchvision("mobilenet_v3_small", "047dcff4", 10.3)
SPECS = {
    "mobilenet_v3_large": _spec("mobilenet_v3_large", _LARGE, _LARGE_FILE),
    "mobilenet_v3_small": _spec("mobilenet_v3_small", _SMALL, _SMALL_FILE),
    "mobilenet_v3_tiny": _spec("mobilenet_v3_tiny", _TINY),
}
