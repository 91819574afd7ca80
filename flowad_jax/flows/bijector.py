"""The only module that imports distrax (its import takes seconds; training does not need it)."""

from typing import TYPE_CHECKING

import distrax
import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from flowad_jax.flows.flow import Flow


class FlowBijector(distrax.Bijector):
    """A bound flow with a fixed condition; `forward` goes from data to latent."""

    def __init__(self, flow: "Flow", cond: jax.Array | None, event_ndims: int):
        """Keeps the flow; ``cond`` is (batch, ...) or None, ``event_ndims`` 1 or 3."""
        super().__init__(event_ndims_in=event_ndims)
        self._flow = flow
        self._cond = cond

    def forward_and_log_det(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps (..., event) to the latent, with log-determinants of shape (...)."""
        return self._on_flat_batch(self._flow, x)

    def inverse_and_log_det(self, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps (..., event) to the data, with log-determinants of the inverse."""
        return self._on_flat_batch(self._flow.inverse, y)

    def same_as(self, other: distrax.Bijector) -> bool:
        """Whether both are this very flow under this very condition."""
        same_flow = isinstance(other, FlowBijector) and other._flow is self._flow
        return same_flow and other._cond is self._cond

    def _on_flat_batch(self, function, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        # distrax allows any number of batch axes; the flow wants exactly one.
        batch, event = _split_shape(x, self.event_ndims_in)
        cond = self._cond
        if cond is not None:
            cond = jnp.broadcast_to(cond, batch + cond.shape[1:])
            cond = cond.reshape((-1, *cond.shape[len(batch) :]))
        out, log_det = function(x.reshape((-1, *event)), cond)
        return out.reshape(x.shape), log_det.reshape(batch)


def data_distribution(
    flow: "Flow", event_shape: tuple[int, ...], cond: jax.Array | None
) -> distrax.Transformed:
    """Density of the data: a standard normal pulled back through the flow."""
    batch = () if cond is None else cond.shape[:1]
    mean = jnp.zeros(batch + tuple(event_shape))
    base = distrax.Independent(
        distrax.Normal(mean, jnp.ones_like(mean)), reinterpreted_batch_ndims=len(event_shape)
    )
    to_latent = FlowBijector(flow, cond, len(event_shape))
    return distrax.Transformed(base, distrax.Inverse(to_latent))


def _split_shape(x: jax.Array, event_ndims: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    border = x.ndim - event_ndims
    return x.shape[:border], x.shape[border:]
