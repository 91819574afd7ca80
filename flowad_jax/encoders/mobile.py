"""Inverted residual blocks, which EfficientNet, its Lite variants and MobileNetV3 consist of."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from flowad_jax.errors import UserError
from flowad_jax.ops.convolution import Conv

BatchNorm = functools.partial(nn.BatchNorm, use_running_average=True, epsilon=1e-3)
Activation = Callable[[jax.Array], jax.Array]


class Stage(NamedTuple):
    """A run of blocks of one kind; the stride belongs to the first."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


# Of EfficientNet-B0 and of Lite0 alike, and the strides of their ends.
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STRIDES = (2, 4, 8, 16, 16, 32, 32)


def scaled(width: float, depth: float, keep_ends: bool = False) -> tuple[Stage, ...]:
    """Returns `STAGES` after compound scaling: channels to multiples of 8, blocks rounded up.

    Args:
      width: factor of the channels.
      depth: factor of the blocks.
      keep_ends: whether the first and the last stage keep their number of blocks.
    """
    ends = (STAGES[0], STAGES[-1]) if keep_ends else ()
    return tuple(
        stage._replace(
            channels=round_to_8(stage.channels * width),
            blocks=stage.blocks if stage in ends else math.ceil(stage.blocks * depth),
        )
        for stage in STAGES
    )


def tiny(*blocks: int) -> tuple[Stage, ...]:
    """Returns small stages for tests, with so many blocks."""
    channels = (8, 8, 16, 16, 24, 24, 32)
    return tuple(
        stage._replace(blocks=count, expansion=min(2, stage.expansion), channels=width)
        for stage, count, width in zip(STAGES, blocks, channels, strict=True)
    )


def round_to_8(channels: float) -> int:
    """Returns the nearest multiple of 8, but never less than nine tenths of what was asked for."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def check_tap_at(tap_at: str, places: tuple[str, ...]) -> None:
    """Raises a `UserError` where a block has no such place for a tap."""
    if tap_at not in places:
        raise UserError(f"encoder.tap_at='{tap_at}': blocks can be tapped at {', '.join(places)}")


class SqueezeExcite(nn.Module):
    """Weighs channels by what a small network sees in their means.

    Attributes:
      squeezed: channels inside.
      names: of its two layers.
      activation: between them.
      gate: makes weights of the second one's outputs.
    """

    squeezed: int
    names: tuple[str, str]
    activation: Activation
    gate: Activation

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to the same shape."""
        reduce, expand = self.names
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        inner = self.activation(Conv(self.squeezed, (1, 1), use_bias=True, name=reduce)(mean))
        return x * self.gate(Conv(x.shape[-1], (1, 1), use_bias=True, name=expand)(inner))


class InvertedResidual(nn.Module):
    """Widen by a 1x1, filter each channel, weigh the channels, narrow by a 1x1; a shortcut.

    Attributes:
      kernel: side of the depthwise kernel.
      stride: of the depthwise convolution.
      inner: channels inside.
      channels: output channels.
      layers: names of every convolution and its norm; of two only where nothing is widened.
      activation: behind all norms but the last.
      squeeze: makes the module that weighs the channels, if there is one.
      padding: of the depthwise convolution.
    """

    kernel: int
    stride: int
    inner: int
    channels: int
    layers: tuple[tuple[str, str], ...]
    activation: Activation
    squeeze: Callable[[], nn.Module] | None = None
    padding: str | int = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Maps (B, H, W, C) to maps (B, ceil(H / stride), ceil(W / stride), channels).

        Returns:
          ``"projection"``, the bare output of the last convolution; ``"norm"``, behind its
          BatchNorm; ``"block"``, behind the shortcut: the block's output.
        """
        *widening, (depthwise, its_norm), (projecting, last_norm) = self.layers
        y = x
        for conv, norm in widening:
            y = self.activation(BatchNorm(name=norm)(Conv(self.inner, (1, 1), name=conv)(y)))
        y = Conv(
            self.inner,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding=self.padding,
            feature_group_count=self.inner,
            name=depthwise,
        )(y)
        y = self.activation(BatchNorm(name=its_norm)(y))
        if self.squeeze is not None:
            y = self.squeeze()(y)
        projection = Conv(self.channels, (1, 1), name=projecting)(y)
        normed = BatchNorm(name=last_norm)(projection)
        shortcut = self.stride == 1 and x.shape[-1] == self.channels
        block = x + normed if shortcut else normed
        return {"projection": projection, "norm": normed, "block": block}
