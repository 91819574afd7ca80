"""MobileNetV3 as torchvision defines it, for its ImageNet weights.

Howard et al., "Searching for MobileNetV3" (ICCV 2019), tables 1 and 2. A tap belongs to one block.
CFLOW-AD reads it at an unusual place, the bare output of the block's last convolution:
``tap_at="projection"``, before its BatchNorm and before the shortcut is added. ``"norm"`` is
behind the BatchNorm, ``"block"`` behind the addition.
"""

import functools
import itertools
import operator
import re
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flowad_jax.convolution import Conv
from flowad_jax.encoders.taps import check_tap_at
from flowad_jax.encoders.widths import round_to_8
from flowad_jax.types import EncoderSpec, Published

TAPS_AT = ("projection", "norm", "block")
IGNORABLE = (r"classifier\..*", r"features\.(12|16)\.[01]\..*", r".*\.num_batches_tracked")
_STEM_CHANNELS = 16

BatchNorm = functools.partial(nn.BatchNorm, use_running_average=True, epsilon=1e-3)


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


def _conv(features: int, size: int, stride: int, name: str, groups: int = 1) -> nn.Module:
    """Pads ``(size - 1) // 2`` on both sides at every stride, as torch does."""
    border = (size - 1) // 2
    return Conv(
        features,
        (size, size),
        strides=stride,
        padding=border,
        feature_group_count=groups,
        name=name,
    )


class SqueezeExcite(nn.Module):
    """Weighs channels by what a small network sees in their means."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to the same shape."""
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        squeezed = Conv(round_to_8(x.shape[-1] // 4), (1, 1), use_bias=True, name="fc1")(mean)
        weight = Conv(x.shape[-1], (1, 1), use_bias=True, name="fc2")(nn.relu(squeezed))
        return x * nn.hard_sigmoid(weight)


class Block(nn.Module):
    """Widen by a 1x1, filter each channel, weigh the channels, narrow by a 1x1.

    The layers are numbered as in torchvision, where one that is left out has no number.

    Attributes:
      row: its measures.
    """

    row: Row

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Maps (B, H, W, C) to maps (B, ceil(H / stride), ceil(W / stride), channels).

        Returns:
          One map for each of `TAPS_AT`; the last is the block's output.
        """
        row, y, number = self.row, x, itertools.count()
        activate = nn.hard_swish if row.hard_swish else nn.relu
        if row.expanded != x.shape[-1]:
            name = f"block_{next(number)}"
            y = _conv(row.expanded, 1, 1, f"{name}_0")(y)
            y = activate(BatchNorm(name=f"{name}_1")(y))
        name = f"block_{next(number)}"
        y = _conv(row.expanded, row.kernel, row.stride, f"{name}_0", groups=row.expanded)(y)
        y = activate(BatchNorm(name=f"{name}_1")(y))
        if row.squeeze:
            y = SqueezeExcite(name=f"block_{next(number)}")(y)
        name = f"block_{next(number)}"
        projection = _conv(row.channels, 1, 1, f"{name}_0")(y)
        normed = BatchNorm(name=f"{name}_1")(projection)
        shortcut = row.stride == 1 and x.shape[-1] == row.channels
        added = x + normed if shortcut else normed
        return {"projection": projection, "norm": normed, "block": added}


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
        check_tap_at(self.tap_at, TAPS_AT)
        x = _conv(_STEM_CHANNELS, 3, 2, "features_0_0")(image)
        x = nn.hard_swish(BatchNorm(name="features_0_1")(x))
        maps = []
        for index, row in enumerate(self.rows[: max(self.taps) + 1]):
            found = Block(row, name=f"features_{index + 1}")(x)
            x = found["block"]
            maps.append(found[self.tap_at])
        return tuple(maps[tap] for tap in self.taps)


def torch_key(path: tuple[str, ...]) -> str:
    """Returns torchvision's name of a variable.

    ``("params", "features_4", "block_1_0", "kernel")`` is ``"features.4.block.1.0.weight"``.
    """
    leaf = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    *modules, name = path[1:]
    modules = [re.sub(r"_(?=\d)", ".", module) for module in modules]
    return ".".join([*modules, leaf.get(name, name)])


def from_dialect(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives torchvision's names to what CFLOW-AD's code saved: the features alone, unnamed."""
    bare = all(re.match(r"\d+\.", name) for name in tensors)
    return {f"features.{name}" if bare else name: t for name, t in tensors.items()}


mobilenet_v3_large = functools.partial(MobileNetV3, _LARGE)
mobilenet_v3_small = functools.partial(MobileNetV3, _SMALL)
# For tests: 12 thousand parameters, no published weights.
mobilenet_v3_tiny = functools.partial(MobileNetV3, _TINY)


def _spec(variant: str, rows: tuple[Row, ...], weights: Published | None = None) -> EncoderSpec:
    strides = itertools.accumulate((row.stride for row in rows), operator.mul, initial=2)
    return EncoderSpec(
        name=f"mobilenet_v3.{variant}",
        channels=tuple(row.channels for row in rows),
        strides=tuple(strides)[1:],
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        weights=weights,
        peer=f"torchvision.{variant}" if weights else "",
    )


def _published(variant: str, digest: str, megabytes: float) -> Published:
    file = f"{variant}-{digest}.pth"
    url = f"https://download.pytorch.org/models/{file}"
    return Published(file, url, "BSD-3-Clause", megabytes)


SPECS = {
    "mobilenet_v3_large": _spec(
        "mobilenet_v3_large", _LARGE, _published("mobilenet_v3_large", "8738ca79", 22.1)
    ),
    "mobilenet_v3_small": _spec(
        "mobilenet_v3_small", _SMALL, _published("mobilenet_v3_small", "047dcff4", 10.3)
    ),
    "mobilenet_v3_tiny": _spec("mobilenet_v3_tiny", _TINY),
}
EXPORTS = tuple(SPECS)
