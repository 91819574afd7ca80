"""A flow: a chain of coupling blocks with its distrax face."""

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowad_jax.errors import UserError

if TYPE_CHECKING:
    import distrax


class Flow(nn.Module):
    """Applies blocks one after the other and adds up their log-determinants.

    The leading axis is the batch; all other axes are the event, channels last.

    Attributes:
      blocks: the chain, from data to latent.
    """

    blocks: tuple[nn.Module, ...]

    def __call__(
        self,
        x: Float[Array, "batch *event C"],
        cond: Float[Array, "... P"] | None = None,
        permute_last: bool = True,
    ) -> tuple[Float[Array, "batch *event C"], Float[Array, " batch"]]:
        """Maps data to the latent, with log-determinants.

        Args:
          x: rows or maps.
          cond: condition of every row or map.
          permute_last: whether the permutation that closes the last block is applied. The norm of
            the latent and, for channel orders, any sum over its channels are the same without it.
        """
        total = jnp.zeros(x.shape[:1], x.dtype)
        *others, last = self.blocks
        for block in others:
            x, log_det = block(x, cond)
            total = total + log_det
        x, log_det = last(x, cond) if permute_last else last(x, cond, permute=False)
        return x, total + log_det

    def inverse(
        self, z: Float[Array, "batch *event C"], cond: Float[Array, "... P"] | None = None
    ) -> tuple[Float[Array, "batch *event C"], Float[Array, " batch"]]:
        """Maps the latent to data, with log-determinants of the inverse map."""
        total = jnp.zeros(z.shape[:1], z.dtype)
        for block in reversed(self.blocks):
            z, log_det = block.inverse(z, cond)
            total = total + log_det
        return z, total

    def bijector(self, cond: Array | None = None, event_ndims: int = 1) -> "distrax.Bijector":
        """Returns a bound flow as a distrax bijector whose forward direction is data to latent.

        Args:
          cond: (batch, ...) condition of every row or map.
          event_ndims: 1 for rows (C,), 3 for maps (H, W, C).

        Raises:
          UserError: the flow has no variables: use ``flow.bind(variables).bijector(cond)``.
        """
        from flowad_jax.flows import bijector

        return bijector.FlowBijector(self._bound(), cond, event_ndims)

    def distribution(
        self, event_shape: tuple[int, ...], cond: Array | None = None
    ) -> "distrax.Transformed":
        """Returns the density of the data as a distrax distribution (`log_prob`, `sample`).

        Args:
          event_shape: shape of one datum: (C,) or (H, W, C).
          cond: (batch, ...) condition; its batch becomes the batch of the distribution.

        Raises:
          UserError: the flow has no variables: use ``flow.bind(variables).distribution(shape)``.
        """
        from flowad_jax.flows import bijector

        return bijector.data_distribution(self._bound(), event_shape, cond)

    def _bound(self) -> "Flow":
        if self.scope is None:
            raise UserError("bind the flow to its variables first: flow.bind(variables)")
        return self


def map_norm(name: str | None = None) -> nn.LayerNorm:
    """Returns PyTorch's LayerNorm over channels and positions, with weights for each of them."""
    axes = (-3, -2, -1)
    return nn.LayerNorm(
        epsilon=1e-5, use_fast_variance=False, reduction_axes=axes, feature_axes=axes, name=name
    )


class NormalizedFlow(nn.Module):
    """A flow on maps behind a trained LayerNorm over channels and positions (FastFlow).

    The LayerNorm is no part of the flow: it has no inverse, and no log-determinant is counted.

    Attributes:
      flow: what follows.
      layer_norm: False leaves the normalisation out.
    """

    flow: Flow
    layer_norm: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"]
    ) -> tuple[Float[Array, "B H W C"], Float[Array, " B"]]:
        """Maps feature maps to latents, with the log-determinants of the flow."""
        if self.layer_norm:
            x = map_norm("norm")(x)
        return self.flow(x)
