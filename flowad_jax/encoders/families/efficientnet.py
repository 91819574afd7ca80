"""EfficientNet as TensorFlow trained it and timm names it.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019).
A tap is the last block of one of the seven stages. ``tap_at="block"`` takes the block's output;
``"norm"`` its last BatchNorm, before the shortcut is added. CFLOW-AD hooks into that BatchNorm,
but up to timm 0.5.4 the block then added the shortcut into the very tensor that the hook had
kept: its figures of 2021 are those of ``"block"``. Its taps are 2, 4 and 5.
"""

from functools import partial

import jax
from flax import linen as nn

from flowad_jax.encoders import conventions, mobile
from flowad_jax.ops.convolution import Conv
from flowad_jax.types import EncoderSpec

TAPS_AT = ("norm", "block")
IGNORABLE = (r"(conv_head|bn2|classifier)\..*", r".*\.num_batches_tracked")
torch_key = conventions.torch_key

# timm counts the norms of a block by their order.
_WIDENED = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
_SEPARABLE = (("conv_dw", "bn1"), ("conv_pw", "bn2"))
_SQUEEZE = partial(
    mobile.SqueezeExcite,
    names=("conv_reduce", "conv_expand"),
    activation=nn.silu,
    gate=nn.sigmoid,
    name="se",
)


class EfficientNet(nn.Module):
    """The network up to its deepest tap, in evaluation mode.

    Attributes:
      stages: blocks of every stage.
      stem: channels of the first convolution.
      taps: stages whose maps are returned.
      tap_at: one of `TAPS_AT`.
    """

    stages: tuple[mobile.Stage, ...]
    stem: int
    taps: tuple[int, ...]
    tap_at: str = "block"

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        """Maps (B, H, W, 3) to the tapped (B, ceil(H / stride), ceil(W / stride), C).

        Raises:
          UserError: ``tap_at`` is unknown.
        """
        mobile.check_tap_at(self.tap_at, TAPS_AT)
        x = Conv(self.stem, (3, 3), strides=2, name="conv_stem")(image)
        x = nn.silu(mobile.BatchNorm(name="bn1")(x))
        maps = []
        for index, stage in enumerate(self.stages[: max(self.taps) + 1]):
            for repeat in range(stage.blocks):
                inputs = x.shape[-1]
                found = mobile.InvertedResidual(
                    kernel=stage.kernel,
                    stride=1 if repeat else stage.stride,
                    inner=inputs * stage.expansion,
                    channels=stage.channels,
                    layers=_SEPARABLE if stage.expansion == 1 else _WIDENED,
                    activation=nn.silu,
                    squeeze=partial(_SQUEEZE, max(1, inputs // 4)),
                    name=f"blocks_{index}_{repeat}",
                )(x)
                x = found["block"]
            maps.append(found[self.tap_at])
        return tuple(maps[tap] for tap in self.taps)


_B5 = mobile.scaled(1.6, 2.2)
_TINY = mobile.tiny(1, 2, 1, 1, 1, 1, 1)

tf_efficientnet_b5 = partial(EfficientNet, _B5, 48)
tf_efficientnet_b5_ns = partial(EfficientNet, _B5, 48)
tf_efficientnet_b5_ap = partial(EfficientNet, _B5, 48)
# For tests: 16 thousand parameters, no published weights.
efficientnet_tiny = partial(EfficientNet, _TINY, 16)


def _spec(
    variant: str,
    stages: tuple[mobile.Stage, ...],
    file: str = "",
    norm: conventions.Norm = conventions.IMAGENET,
) -> EncoderSpec:
    channels = tuple(stage.channels for stage in stages)
    weights = conventions.of_timm(file, 121.6) if file else None
    peer, name = "timm.tf_efficientnet_b5" if file else "", f"efficientnet.{variant}"
    return EncoderSpec(name, channels, mobile.STRIDES, *norm, weights, peer)


SPECS = {
    "tf_efficientnet_b5": _spec("tf_efficientnet_b5", _B5, "tf_efficientnet_b5_ra-9a3e5369.pth"),
    "tf_efficientnet_b5_ns": _spec(
        "tf_efficientnet_b5_ns", _B5, "tf_efficientnet_b5_ns-6f26d0cf.pth"
    ),
    "tf_efficientnet_b5_ap": _spec(
        "tf_efficientnet_b5_ap", _B5, "tf_efficientnet_b5_ap-9e82fae8.pth", conventions.HALF
    ),
    "efficientnet_tiny": _spec("efficientnet_tiny", _TINY),
}
