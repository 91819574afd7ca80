"""BatchNorm of networks that are trained, unlike those of encoders."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class BatchNorm(nn.Module):
    """PyTorch's BatchNorm over the images that count.

    Flax's own keeps the biased variance in its running statistics, PyTorch the unbiased one.

    Attributes:
      momentum: share of a new batch in the running statistics.
      epsilon: added to the variance.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], weight: Float[Array, " B"] | None = None
    ) -> Float[Array, "B H W C"]:
        """Normalises maps.

        Args:
          x: the maps.
          weight: while training, of every image: those of weight 1 give mean and variance, and the
            running statistics in ``buffers`` are updated and have to be mutable. None for scoring,
            with the running statistics.
        """
        _, height, columns, width = x.shape
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        running_mean = self.variable("buffers", "mean", jnp.zeros, (width,))
        running_var = self.variable("buffers", "var", jnp.ones, (width,))
        if weight is None:
            mean, var = running_mean.value, running_var.value
        else:
            weight = weight[:, None, None, None]
            pixels = jnp.sum(weight) * height * columns
            mean = jnp.sum(weight * x, axis=(0, 1, 2)) / pixels
            var = jnp.sum(weight * (x - mean) ** 2, axis=(0, 1, 2)) / pixels
            unbiased = var * pixels / jnp.maximum(pixels - 1.0, 1.0)
            if not self.is_initializing():
                running_mean.value = self._blend(running_mean.value, mean)
                running_var.value = self._blend(running_var.value, unbiased)
        return (x - mean) * (scale * jax.lax.rsqrt(var + self.epsilon)) + bias

    def _blend(self, old: Array, new: Array) -> Array:
        return (1.0 - self.momentum) * old + self.momentum * jax.lax.stop_gradient(new)
