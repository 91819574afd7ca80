"""Networks that predict scale and shift inside a coupling block."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowad_jax.flows.batch_norm import BatchNorm
from flowad_jax.ops.convolution import convolve

# PyTorch's default for linear layers and convolutions: uniform within 1 / sqrt(fan_in), for kernel
# and bias alike.
torch_kernel = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def torch_bias(fan_in: int) -> Callable[..., Array]:
    """Returns PyTorch's initializer of a bias: uniform within ``1 / sqrt(fan_in)``."""
    bound = fan_in**-0.5
    return lambda rng, shape, dtype=jnp.float32: jax.random.uniform(
        rng, shape, dtype, -bound, bound
    )


def layer_norm(name: str) -> nn.LayerNorm:
    """Returns PyTorch's LayerNorm over the channels of every position."""
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)


class MLP(nn.Module):
    """Linear, ReLU, linear, twice as wide inside as its input (CFLOW-AD, section 3.2).

    Works on rows (N, C) and, position by position, on maps (B, H, W, C).

    Attributes:
      features: number of output channels.
    """

    features: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "*rows C"], cond: Float[Array, "*rows P"] | None = None
    ) -> Float[Array, "*rows features"]:
        """Predicts from the passive channels and the condition beside them."""
        if cond is not None:
            x = jnp.concatenate([x, cond], axis=-1)
        width = x.shape[-1]
        x = nn.relu(self._linear(2 * width, width, "hidden")(x))
        return self._linear(self.features, 2 * width, "out")(x)

    def _linear(self, features: int, fan_in: int, name: str) -> nn.Dense:
        return nn.Dense(features, kernel_init=torch_kernel, bias_init=torch_bias(fan_in), name=name)


class SameConv(nn.Module):
    """A convolution with bias and zeros at the border over the channels of several maps.

    Each map meets its own slice of the kernel, and the results are added: the same sum as over the
    concatenated channels, but a map that all images share is convolved once.

    Attributes:
      features: number of output channels.
      compute: dtype of the products, e.g. bfloat16; None for that of the maps.
      size: side of the kernel, odd.
    """

    features: int
    compute: jnp.dtype | None = None
    size: int = 3

    @nn.compact
    def __call__(self, *maps: Float[Array, "_ H W _"]) -> Float[Array, "B H W features"]:
        """Convolves maps (B or 1, H, W, C_i); returns the dtype of the first."""
        widths = [x.shape[-1] for x in maps]
        total, border = sum(widths), self.size // 2
        shape = (self.size, self.size, total, self.features)
        kernel = self.param("kernel", torch_kernel, shape)
        bias = self.param("bias", torch_bias(self.size**2 * total), (self.features,))
        dtype = self.compute or maps[0].dtype
        out, start = bias, 0
        for x, width in zip(maps, widths, strict=True):
            weights = kernel[:, :, start : start + width].astype(dtype)
            product = convolve(x.astype(dtype), weights, (1, 1), 2 * ((border, border),))
            out, start = out + product.astype(maps[0].dtype), start + width
        return out


class ConvNet(nn.Module):
    """Convolution, LayerNorm over the channels, ReLU, convolution (MSFlow, parallel flows).

    The normalisation comes before the ReLU, as in the published logs; the paper's text has them
    the other way round.

    Attributes:
      features: number of output channels.
      compute: dtype of the convolutions; everything else stays in the dtype of the maps.
    """

    features: int
    compute: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], cond: Float[Array, "_ H W P"] | None = None
    ) -> Float[Array, "B H W features"]:
        """Predicts from maps and a condition that is one for all images or one for each."""
        maps = (x,) if cond is None else (x, cond)
        width = sum(part.shape[-1] for part in maps)
        x = SameConv(width, self.compute, name="hidden")(*maps)
        x = nn.relu(layer_norm(name="norm")(x))
        return SameConv(self.features, self.compute, name="out")(x)


class PlainConvNet(nn.Module):
    """Convolution, ReLU, convolution (FastFlow, section 3.2).

    Attributes:
      features: number of output channels.
      size: side of the kernels.
      ratio: channels inside for one of the input.
    """

    features: int
    size: int = 3
    ratio: float = 1.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], cond: None = None
    ) -> Float[Array, "B H W features"]:
        """Predicts from maps; there is no condition."""
        hidden = SameConv(int(self.ratio * x.shape[-1]), size=self.size, name="hidden")(x)
        return SameConv(self.features, size=self.size, name="out")(nn.relu(hidden))


class NormedConvNet(nn.Module):
    """Convolution, convolution, BatchNorm, leaky ReLU (PatchFlow, as its public code has it).

    Attributes:
      features: number of output channels.
      hidden: channels between the convolutions.
    """

    features: int
    hidden: int = 128

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], cond: Float[Array, " B"] | None = None
    ) -> Float[Array, "B H W features"]:
        """Predicts from maps.

        Args:
          x: the maps.
          cond: weight of every image while training: those of weight 1 normalise, and running
            statistics in ``buffers`` are updated. None for scoring, with the running statistics.
        """
        x = SameConv(self.features, name="out")(SameConv(self.hidden, name="hidden")(x))
        return nn.leaky_relu(BatchNorm(name="norm")(x, cond), 0.2)
