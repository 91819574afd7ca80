"""Networks that predict scale and shift inside a coupling block."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

# PyTorch's default for linear layers: uniform within 1 / sqrt(fan_in), for kernel and bias alike.
_torch_kernel = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def torch_bias(fan_in: int) -> Callable[..., jax.Array]:
    """Initializer of a bias as PyTorch does it: uniform within ``1 / sqrt(fan_in)``."""
    bound = fan_in**-0.5
    return lambda rng, shape, dtype=jnp.float32: jax.random.uniform(
        rng, shape, dtype, -bound, bound
    )


class MLP(nn.Module):
    """Linear, ReLU, linear, twice as wide inside as its input (CFLOW-AD, section 3.2).

    Works on rows (N, C) and, position by position, on maps (B, H, W, C).

    Attributes:
      features: number of output channels.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, cond: jax.Array | None = None) -> jax.Array:
        """Returns (..., features) from the passive channels and the condition beside them."""
        if cond is not None:
            x = jnp.concatenate([x, cond], axis=-1)
        width = x.shape[-1]
        x = nn.relu(self._linear(2 * width, width, "hidden")(x))
        return self._linear(self.features, 2 * width, "out")(x)

    def _linear(self, features: int, fan_in: int, name: str) -> nn.Dense:
        return nn.Dense(
            features, kernel_init=_torch_kernel, bias_init=torch_bias(fan_in), name=name
        )
