"""A flow: a chain of coupling blocks with its distrax face."""

from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowad_jax.errors import UserError

if TYPE_CHECKING:
    import distrax


class Flow(nn.Module):
    """Applies blocks one after the other and adds up their log-determinants.

    The leading axis is the batch; all other axes are the event, channels last.

    Attributes:
      blocks: the chain, from data to latent.

    Example:
      >>> from flowad_jax.flows import cflow_decoder
      >>> flow = cflow_decoder(channels=6, blocks=2)
      >>> x, cond = jax.numpy.ones((5, 6)), jax.numpy.ones((5, 4))
      >>> variables = flow.init(jax.random.key(0), x, cond)
      >>> z, log_det = flow.apply(variables, x, cond)
      >>> flow.bind(variables).distribution((6,), cond).log_prob(x).shape
      (5,)
    """

    blocks: tuple[nn.Module, ...]

    def __call__(
        self, x: jax.Array, cond: jax.Array | None = None, mix_last: bool = True
    ) -> tuple[jax.Array, jax.Array]:
        """Maps data to the latent.

        Args:
          x: (batch, ..., C).
          cond: (batch, ...) condition of every row or map.
          mix_last: whether the permutation that closes the last block is applied. The norm of the
            latent and, for channel orders, any sum over its channels are the same without it.

        Returns:
          The latent and the log-determinants (batch,).
        """
        total = jnp.zeros(x.shape[:1], x.dtype)
        *others, last = self.blocks
        for block in others:
            x, log_det = block(x, cond)
            total = total + log_det
        x, log_det = last(x, cond) if mix_last else last(x, cond, mix=False)
        return x, total + log_det

    def inverse(self, z: jax.Array, cond: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Maps the latent to data: ``z -> (x, log_det of the inverse map)``."""
        total = jnp.zeros(z.shape[:1], z.dtype)
        for block in reversed(self.blocks):
            z, log_det = block.inverse(z, cond)
            total = total + log_det
        return z, total

    def bijector(self, cond: jax.Array | None = None, event_ndims: int = 1) -> "distrax.Bijector":
        """Returns the flow as a distrax bijector whose forward direction is data to latent.

        Call it on a bound module: ``flow.bind(variables).bijector(cond)``.

        Args:
          cond: (batch, ...) condition of every row or map.
          event_ndims: 1 for rows (C,), 3 for maps (H, W, C).
        """
        from flowad_jax.flows import bijector

        return bijector.FlowBijector(self._bound(), cond, event_ndims)

    def distribution(
        self, event_shape: tuple[int, ...], cond: jax.Array | None = None
    ) -> "distrax.Transformed":
        """Returns the density of the data as a distrax distribution (`log_prob`, `sample`).

        Args:
          event_shape: shape of one datum: (C,) or (H, W, C).
          cond: (batch, ...) condition; its batch becomes the batch of the distribution.
        """
        from flowad_jax.flows import bijector

        return bijector.data_distribution(self._bound(), event_shape, cond)

    def _bound(self) -> "Flow":
        if self.scope is None:
            raise UserError("bind the flow to its variables first: flow.bind(variables)")
        return self
