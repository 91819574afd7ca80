"""The network that predicts, pixel by pixel, how far the latent of a normal feature spreads."""

import flax.linen as nn
from jaxtyping import Array, Float

from flowad_jax.flows.batch_norm import BatchNorm
from flowad_jax.flows.subnets import torch_kernel
from flowad_jax.ops.convolution import Conv

WIDTH = 64
LAYERS = 3  # hidden convolutions between the first and the last


class VarianceNet(nn.Module):
    """A small denoiser-like network at full resolution, called SNet in the paper.

    A convolution with ReLU, three times convolution, BatchNorm and ReLU, the first result added,
    and a last convolution; all 3x3 with 64 channels and without bias (SANFlow, framework figure,
    but BatchNorm before the ReLU and no activation at the end, as in the released weights). A
    pixel sees 11 x 11 pixels.

    Attributes:
      heads: pairs of outputs per pixel; 1 is published, one for all scales.
    """

    heads: int = 1

    @nn.compact
    def __call__(
        self, image: Float[Array, "B H W 3"], weight: Float[Array, " B"] | None = None
    ) -> Float[Array, "B H W outputs"]:
        """Predicts the logarithms of the inverse-gamma parameters of every pixel.

        Args:
          image: normalised as for the encoder.
          weight: what every image counts in the statistics of the batch, by which it is
            normalised then; the running statistics in ``buffers`` are updated and have to be
            mutable. None for scoring, with the running statistics.

        Returns:
          2 * heads outputs: ln alpha and ln beta of the first head, then of the next.
        """
        first = nn.relu(_conv(WIDTH, "first")(image))
        x = first
        for layer in range(LAYERS):
            x = _conv(WIDTH, f"conv{layer}")(x)
            x = nn.relu(BatchNorm(name=f"norm{layer}")(x, weight))
        return _conv(2 * self.heads, "last")(x + first)


def _conv(features: int, name: str) -> nn.Module:
    return Conv(features, (3, 3), padding=((1, 1), (1, 1)), kernel_init=torch_kernel, name=name)
