"""The ResNet family as torchvision defines it, for torchvision's first ImageNet weights.

He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), with the stride on the 3x3
convolution of a bottleneck; Xie et al., "Aggregated Residual Transformations" (CVPR 2017);
Zagoruyko and Komodakis, "Wide Residual Networks" (BMVC 2016). A tap is the output of one of the
four stages, after the last addition and ReLU. CFLOW-AD's code mirrors the border
(``padding="reflect"``) although the weights were trained with zeros; its figures need that.
"""

from functools import partial

import jax
from flax import linen as nn

from flowad_jax.encoders import conventions
from flowad_jax.errors import UserError
from flowad_jax.ops.convolution import Conv
from flowad_jax.types import EncoderSpec, Published

STRIDES = (4, 8, 16, 32)
PADDINGS = ("reflect", "zeros")
IGNORABLE = (r"fc\..*", r".*\.num_batches_tracked")
torch_key = conventions.torch_key

BatchNorm = partial(nn.BatchNorm, use_running_average=True, epsilon=1e-5)


def _conv(
    features: int, size: int, stride: int, padding: str, name: str, groups: int = 1
) -> nn.Module:
    """Pads ``size // 2`` on both sides at every stride, as torch does and ``"SAME"`` does not."""
    border = size // 2
    return Conv(
        features,
        (size, size),
        strides=stride,
        padding="REFLECT" if padding == "reflect" and border else border,
        feature_group_count=groups,
        name=name,
    )


class Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of a 1x1, a 3x3 and a 1x1; and a shortcut.

    Attributes:
      planes: output channels; of a bottleneck a quarter of them.
      stride: of the first 3x3 convolution and of the shortcut.
      padding: ``"zeros"`` or ``"reflect"``.
      base_width: of a bottleneck, channels per group of the 3x3 convolution where ``planes`` is
        64; None for a block without one.
      groups: of the 3x3 convolution (ResNeXt).
    """

    planes: int
    stride: int
    padding: str
    base_width: int | None = None
    groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, channels)."""
        if self.base_width is None:
            features = self.planes
            layers = [(features, 3, self.stride, 1), (features, 3, 1, 1)]
        else:
            features, inner = 4 * self.planes, self.planes * self.base_width // 64 * self.groups
            layers = [(inner, 1, 1, 1), (inner, 3, self.stride, self.groups), (features, 1, 1, 1)]
        y = x
        for number, (width, size, stride, groups) in enumerate(layers, 1):
            y = nn.relu(y) if number > 1 else y
            y = _conv(width, size, stride, self.padding, f"conv{number}", groups)(y)
            y = BatchNorm(name=f"bn{number}")(y)
        if self.stride != 1 or x.shape[-1] != features:
            x = _conv(features, 1, self.stride, "zeros", "downsample_0")(x)
            x = BatchNorm(name="downsample_1")(x)
        return nn.relu(y + x)


class ResNet(nn.Module):
    """The network up to its deepest tap, in evaluation mode.

    Attributes:
      stage_sizes: blocks per stage.
      taps: stages whose outputs are returned, 0 for ``layer1``.
      padding: ``"reflect"`` or ``"zeros"`` around the stem and every 3x3 convolution.
      base_width, groups: see `Block`.
      width: channels of the stem.
    """

    stage_sizes: tuple[int, ...]
    taps: tuple[int, ...]
    padding: str = "reflect"
    base_width: int | None = None
    groups: int = 1
    width: int = 64

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        """Maps (B, H, W, 3) to the tapped (B, ceil(H / stride), ceil(W / stride), C).

        Raises:
          UserError: the padding mode is unknown, or the image is too small to be mirrored.
        """
        _check(self.padding, image.shape[1:3], STRIDES[max(self.taps)])
        x = nn.relu(BatchNorm(name="bn1")(_conv(self.width, 7, 2, self.padding, "conv1")(image)))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        maps = []
        for stage, size in enumerate(self.stage_sizes[: max(self.taps) + 1]):
            for index in range(size):
                x = Block(
                    planes=self.width * 2**stage,
                    stride=2 if stage and not index else 1,
                    padding=self.padding,
                    base_width=self.base_width,
                    groups=self.groups,
                    name=f"layer{stage + 1}_{index}",
                )(x)
            maps.append(x)
        return tuple(maps[tap] for tap in self.taps)


def _check(padding: str, size: tuple[int, ...], stride: int) -> None:
    if padding not in PADDINGS:
        raise UserError(
            f"padding '{padding}' is unknown to ResNets: choose {' or '.join(PADDINGS)}"
        )
    if padding == "reflect" and min(size) <= stride:
        raise UserError(
            f"image of {size[0]} x {size[1]} px is too small for reflect padding: its deepest map "
            f"would be 1 position wide; use more than {stride} px or padding 'zeros'"
        )


resnet18 = partial(ResNet, (2, 2, 2, 2))
resnet34 = partial(ResNet, (3, 4, 6, 3))
resnet50 = partial(ResNet, (3, 4, 6, 3), base_width=64)
resnet101 = partial(ResNet, (3, 4, 23, 3), base_width=64)
resnet152 = partial(ResNet, (3, 8, 36, 3), base_width=64)
resnext50_32x4d = partial(ResNet, (3, 4, 6, 3), base_width=4, groups=32)
resnext101_32x8d = partial(ResNet, (3, 4, 23, 3), base_width=8, groups=32)
wide_resnet50_2 = partial(ResNet, (3, 4, 6, 3), base_width=128)
wide_resnet101_2 = partial(ResNet, (3, 4, 23, 3), base_width=128)
# For tests: 78 thousand parameters, no published weights.
resnet_tiny = partial(ResNet, (1, 1, 1, 1), width=8)


def _spec(variant: str, first: int, weights: Published | None = None) -> EncoderSpec:
    channels = (first, 2 * first, 4 * first, 8 * first)
    peer = f"torchvision.{variant}" if weights else ""
    name = f"resnet.{variant}"
    return EncoderSpec(name, channels, STRIDES, *conventions.IMAGENET, weights, peer)


def _published(variant: str, digest: str, megabytes: float, first: int) -> EncoderSpec:
    return _spec(variant, first, conventions.of_torchvision(variant, digest, megabytes))


SPECS = {
    "resnet18": _published("resnet18", "f37072fd", 46.8, 64),
    "resnet34": _published("resnet34", "b627a593", 87.3, 64),
    "resnet50": _published("resnet50", "0676ba61", 102.5, 256),
    "resnet101": _published("resnet101", "63fe2227", 178.8, 256),
    "resnet152": _published("resnet152", "394f9c45", 241.6, 256),
    "resnext50_32x4d": _published("resnext50_32x4d", "7cdf4587", 100.4, 256),
    "resnext101_32x8d": _published("resnext101_32x8d", "8ba56ff5", 356.1, 256),
    "wide_resnet50_2": _published("wide_resnet50_2", "95faca4d", 138.2, 256),
    "wide_resnet101_2": _published("wide_resnet101_2", "32ee1156", 254.7, 256),
    "resnet_tiny": _spec("resnet_tiny", 8),
}
