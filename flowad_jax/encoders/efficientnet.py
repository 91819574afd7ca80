"""EfficientNet as TensorFlow trained it and timm names it.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019).
A tap is the last block of one of the seven stages. ``tap_at="block"`` takes the block's output;
``"norm"`` its last BatchNorm, before the shortcut is added. CFLOW-AD hooks into that BatchNorm,
but up to timm 0.5.4 the block then added the shortcut into the very tensor that the hook had
kept: its figures of 2021 are those of ``"block"``. Its taps are 2, 4 and 5.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
from flax import linen as nn

from flowad_jax.convolution import Conv
from flowad_jax.encoders.efficientnet_lite import STAGES, STRIDES, Stage
from flowad_jax.encoders.taps import check_tap_at
from flowad_jax.encoders.widths import round_to_8
from flowad_jax.types import EncoderSpec, Published

TAPS_AT = ("norm", "block")
IGNORABLE = (r"(conv_head|bn2|classifier)\..*", r".*\.num_batches_tracked")

BatchNorm = functools.partial(nn.BatchNorm, use_running_average=True, epsilon=1e-3)


def _scaled(width: float, depth: float) -> tuple[Stage, ...]:
    """Compound scaling of all stages: channels to multiples of 8, blocks rounded up."""
    return tuple(
        stage._replace(
            channels=round_to_8(stage.channels * width), blocks=math.ceil(stage.blocks * depth)
        )
        for stage in STAGES
    )


def _conv(features: int, size: int, stride: int, name: str, groups: int = 1) -> nn.Module:
    return Conv(
        features,
        (size, size),
        strides=stride,
        padding="SAME",
        feature_group_count=groups,
        name=name,
    )


class SqueezeExcite(nn.Module):
    """Weighs channels by what a small network sees in their means.

    Attributes:
      squeezed: channels inside.
    """

    squeezed: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to the same shape."""
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        inner = nn.silu(Conv(self.squeezed, (1, 1), use_bias=True, name="conv_reduce")(mean))
        weight = Conv(x.shape[-1], (1, 1), use_bias=True, name="conv_expand")(inner)
        return x * nn.sigmoid(weight)


class InvertedResidual(nn.Module):
    """Widen by a 1x1, filter each channel, weigh the channels, narrow by a 1x1; a shortcut.

    Attributes:
      kernel: side of the depthwise kernel.
      stride: of the depthwise convolution.
      expansion: widening factor; 1 leaves the first convolution out.
      channels: output channels.
    """

    kernel: int
    stride: int
    expansion: int
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Maps (B, H, W, C) to maps (B, ceil(H / stride), ceil(W / stride), channels).

        Returns:
          One map for each of `TAPS_AT`; the last is the block's output.
        """
        y, inputs = x, x.shape[-1]
        inner = inputs * self.expansion
        names = ["conv_dw", "bn1", "conv_pw", "bn2"]  # timm counts norms by their order
        if self.expansion != 1:
            names = ["conv_dw", "bn2", "conv_pwl", "bn3"]
            y = nn.silu(BatchNorm(name="bn1")(_conv(inner, 1, 1, "conv_pw")(y)))
        y = _conv(inner, self.kernel, self.stride, names[0], groups=inner)(y)
        y = nn.silu(BatchNorm(name=names[1])(y))
        y = SqueezeExcite(max(1, inputs // 4), name="se")(y)
        normed = BatchNorm(name=names[3])(_conv(self.channels, 1, 1, names[2])(y))
        shortcut = self.stride == 1 and inputs == self.channels
        return {"norm": normed, "block": x + normed if shortcut else normed}


class EfficientNet(nn.Module):
    """The network up to its deepest tap, in evaluation mode.

    Attributes:
      stages: blocks of every stage.
      stem: channels of the first convolution.
      taps: stages whose maps are returned.
      tap_at: one of `TAPS_AT`.
    """

    stages: tuple[Stage, ...]
    stem: int
    taps: tuple[int, ...]
    tap_at: str = "block"

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        """Maps (B, H, W, 3) to the tapped (B, ceil(H / stride), ceil(W / stride), C).

        Raises:
          UserError: ``tap_at`` is unknown.
        """
        check_tap_at(self.tap_at, TAPS_AT)
        x = nn.silu(BatchNorm(name="bn1")(_conv(self.stem, 3, 2, "conv_stem")(image)))
        maps = []
        for index, stage in enumerate(self.stages[: max(self.taps) + 1]):
            for repeat in range(stage.blocks):
                found = InvertedResidual(
                    kernel=stage.kernel,
                    stride=1 if repeat else stage.stride,
                    expansion=stage.expansion,
                    channels=stage.channels,
                    name=f"blocks_{index}_{repeat}",
                )(x)
                x = found["block"]
            maps.append(found[self.tap_at])
        return tuple(maps[tap] for tap in self.taps)


def torch_key(path: tuple[str, ...]) -> str:
    """Returns timm's name of a variable.

    ``("params", "blocks_2_4", "conv_pwl", "kernel")`` is ``"blocks.2.4.conv_pwl.weight"``.
    """
    leaf = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    *modules, name = path[1:]
    modules = [re.sub(r"_(?=\d)", ".", module) for module in modules]
    return ".".join([*modules, leaf.get(name, name)])


_B5 = _scaled(1.6, 2.2)
_TINY_CHANNELS = (8, 8, 16, 16, 24, 24, 32)
_TINY = tuple(
    stage._replace(blocks=1 + (index == 1), expansion=min(2, stage.expansion), channels=channels)
    for index, (stage, channels) in enumerate(zip(STAGES, _TINY_CHANNELS, strict=True))
)

tf_efficientnet_b5 = functools.partial(EfficientNet, _B5, 48)
tf_efficientnet_b5_ns = functools.partial(EfficientNet, _B5, 48)
tf_efficientnet_b5_ap = functools.partial(EfficientNet, _B5, 48)
# For tests: 16 thousand parameters, no published weights.
efficientnet_tiny = functools.partial(EfficientNet, _TINY, 16)


def _spec(
    variant: str, stages: tuple[Stage, ...], digest: str = "", inception: bool = False
) -> EncoderSpec:
    releases = "https://github.com/rwightman/pytorch-image-models/releases/download"
    file = f"{variant}-{digest}.pth".replace("b5-", "b5_ra-")
    url = f"{releases}/v0.1-weights/{file}"
    return EncoderSpec(
        name=f"efficientnet.{variant}",
        channels=tuple(stage.channels for stage in stages),
        strides=STRIDES,
        mean=(0.5, 0.5, 0.5) if inception else (0.485, 0.456, 0.406),
        std=(0.5, 0.5, 0.5) if inception else (0.229, 0.224, 0.225),
        weights=Published(file, url, "Apache-2.0", 121.6) if digest else None,
        peer="timm.tf_efficientnet_b5" if digest else "",
    )


SPECS = {
    "tf_efficientnet_b5": _spec("tf_efficientnet_b5", _B5, "9a3e5369"),
    "tf_efficientnet_b5_ns": _spec("tf_efficientnet_b5_ns", _B5, "6f26d0cf"),
    "tf_efficientnet_b5_ap": _spec("tf_efficientnet_b5_ap", _B5, "9e82fae8", inception=True),
    "efficientnet_tiny": _spec("efficientnet_tiny", _TINY),
}
EXPORTS = tuple(SPECS)
