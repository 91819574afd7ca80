"""The ResNet family as torchvision defines it, for torchvision's first ImageNet weights.

He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), with the stride on the 3x3
convolution of a bottleneck; Xie et al., "Aggregated Residual Transformations" (CVPR 2017);
Zagoruyko and Komodakis, "Wide Residual Networks" (BMVC 2016). A tap is the output of one of the
four stages, after the last addition and ReLU. CFLOW-AD's code mirrors the border
(``padding="reflect"``) although the weights were trained with zeros; its figures need that.
"""

import functools
import re
from collections.abc import Callable

import jax
from flax import linen as nn

from flowad_jax.convolution import Conv
from flowad_jax.errors import UserError
from flowad_jax.types import EncoderSpec, Published

STRIDES = (4, 8, 16, 32)
PADDINGS = ("reflect", "zeros")
IGNORABLE = (r"fc\..*", r".*\.num_batches_tracked")

BatchNorm = functools.partial(nn.BatchNorm, use_running_average=True, epsilon=1e-5)


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


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Attributes:
      planes: output channels.
      stride: of the first convolution and of the shortcut.
      padding: ``"zeros"`` or ``"reflect"``.
    """

    planes: int
    stride: int
    padding: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, planes)."""
        y = _conv(self.planes, 3, self.stride, self.padding, "conv1")(x)
        y = nn.relu(BatchNorm(name="bn1")(y))
        y = _conv(self.planes, 3, 1, self.padding, "conv2")(y)
        y = BatchNorm(name="bn2")(y)
        return nn.relu(y + _shortcut(x, self.planes, self.stride))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut.

    Attributes:
      planes: a quarter of the output channels.
      stride: of the 3x3 convolution and of the shortcut.
      padding: ``"zeros"`` or ``"reflect"``.
      groups: of the 3x3 convolution (ResNeXt).
      base_width: channels per group of the 3x3 convolution where ``planes`` is 64.
    """

    planes: int
    stride: int
    padding: str
    groups: int = 1
    base_width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, 4 * planes)."""
        inner, outer = self.planes * self.base_width // 64 * self.groups, 4 * self.planes
        y = _conv(inner, 1, 1, self.padding, "conv1")(x)
        y = nn.relu(BatchNorm(name="bn1")(y))
        y = _conv(inner, 3, self.stride, self.padding, "conv2", self.groups)(y)
        y = nn.relu(BatchNorm(name="bn2")(y))
        y = _conv(outer, 1, 1, self.padding, "conv3")(y)
        y = BatchNorm(name="bn3")(y)
        return nn.relu(y + _shortcut(x, outer, self.stride))


def _shortcut(x: jax.Array, features: int, stride: int) -> jax.Array:
    if stride == 1 and x.shape[-1] == features:
        return x
    x = _conv(features, 1, stride, "zeros", "downsample_0")(x)
    return BatchNorm(name="downsample_1")(x)


class ResNet(nn.Module):
    """The network up to its deepest tap, in evaluation mode.

    Attributes:
      stage_sizes: blocks per stage.
      block: ``(planes=, stride=, padding=, name=) -> module``.
      taps: stages whose outputs are returned, 0 for ``layer1``.
      padding: ``"reflect"`` or ``"zeros"`` around the stem and every 3x3 convolution.
      width: channels of the stem.
    """

    stage_sizes: tuple[int, ...]
    block: Callable[..., nn.Module]
    taps: tuple[int, ...]
    padding: str = "reflect"
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
                x = self.block(
                    planes=self.width * 2**stage,
                    stride=2 if stage and not index else 1,
                    padding=self.padding,
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


def torch_key(path: tuple[str, ...]) -> str:
    """Returns torchvision's name of a variable.

    ``("batch_stats", "layer1_0", "bn1", "mean")`` is ``"layer1.0.bn1.running_mean"``.
    """
    leaf = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    *modules, name = path[1:]
    modules = [re.sub(r"_(\d+)$", r".\1", module) for module in modules]
    return ".".join([*modules, leaf.get(name, name)])


def _bottleneck(groups: int = 1, base_width: int = 64) -> Callable[..., nn.Module]:
    return functools.partial(Bottleneck, groups=groups, base_width=base_width)


resnet18 = functools.partial(ResNet, (2, 2, 2, 2), BasicBlock)
resnet34 = functools.partial(ResNet, (3, 4, 6, 3), BasicBlock)
resnet50 = functools.partial(ResNet, (3, 4, 6, 3), _bottleneck())
resnet101 = functools.partial(ResNet, (3, 4, 23, 3), _bottleneck())
resnet152 = functools.partial(ResNet, (3, 8, 36, 3), _bottleneck())
resnext50_32x4d = functools.partial(ResNet, (3, 4, 6, 3), _bottleneck(32, 4))
resnext101_32x8d = functools.partial(ResNet, (3, 4, 23, 3), _bottleneck(32, 8))
wide_resnet50_2 = functools.partial(ResNet, (3, 4, 6, 3), _bottleneck(1, 128))
wide_resnet101_2 = functools.partial(ResNet, (3, 4, 23, 3), _bottleneck(1, 128))
# For tests: 78 thousand parameters, no published weights.
resnet_tiny = functools.partial(ResNet, (1, 1, 1, 1), BasicBlock, width=8)


def _spec(variant: str, first: int, weights: Published | None = None) -> EncoderSpec:
    return EncoderSpec(
        name=f"resnet.{variant}",
        channels=(first, 2 * first, 4 * first, 8 * first),
        strides=STRIDES,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        weights=weights,
        peer=f"torchvision.{variant}" if weights else "",
    )


def _published(variant: str, digest: str, megabytes: float, first: int) -> EncoderSpec:
    """Torchvision's first ImageNet weights, which CFLOW-AD used."""
    file = f"{variant}-{digest}.pth"
    url = f"https://download.pytorch.org/models/{file}"
    return _spec(variant, first, Published(file, url, "BSD-3-Clause", megabytes))


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
EXPORTS = tuple(SPECS)
