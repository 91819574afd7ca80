"""The only module that imports distrax (its import takes seconds; training does not need it)."""

from collections.abc import Callable
from typing import Any

import distrax
import jax.numpy as jnp
from jaxtyping import Array, Float

Pair = tuple[Array, Array]
Bound = Any  # a bound flow, callable, with an `inverse`


class FlowBijector(distrax.Bijector):  # type: ignore[misc]  # it has no types
    """A bound flow with a fixed condition; `forward` goes from data to latent."""

    def __init__(self, flow: Bound, cond: Array | None, event_ndims: int):
        """Keeps the flow; ``cond`` is (batch, ...) or None, ``event_ndims`` 1 or 3."""
        super().__init__(event_ndims_in=event_ndims)
        self._flow = flow
        self._cond = cond

    def forward_and_log_det(self, x: Array) -> Pair:
        """Maps (..., event) to the latent, with log-determinants of shape (...)."""
        return self._on_flat_batch(self._flow, x)

    def inverse_and_log_det(self, y: Array) -> Pair:
        """Maps (..., event) to the data, with log-determinants of the inverse."""
        return self._on_flat_batch(self._flow.inverse, y)

    def same_as(self, other: distrax.Bijector) -> bool:
        """Returns whether both are this very flow under this very condition."""
        same_flow = isinstance(other, FlowBijector) and other._flow is self._flow
        return same_flow and other._cond is self._cond

    def _on_flat_batch(self, function: Callable[..., Pair], x: Array) -> Pair:
        # distrax allows any number of batch axes; the flow wants exactly one.
        border = x.ndim - self.event_ndims_in
        batch, event, cond = x.shape[:border], x.shape[border:], self._cond
        if cond is not None:
            cond = jnp.broadcast_to(cond, batch + cond.shape[1:])
            cond = cond.reshape((-1, *cond.shape[border:]))
        out, log_det = function(x.reshape((-1, *event)), cond)
        return out.reshape(x.shape), log_det.reshape(batch)


def data_distribution(
    flow: Bound, event_shape: tuple[int, ...], cond: Float[Array, "batch ..."] | None
) -> distrax.Transformed:
    """Returns the density of the data: a standard normal pulled back through the flow."""
    batch = () if cond is None else cond.shape[:1]
    mean = jnp.zeros(batch + tuple(event_shape))
    base = distrax.Independent(
        distrax.Normal(mean, jnp.ones_like(mean)), reinterpreted_batch_ndims=len(event_shape)
    )
    to_latent = FlowBijector(flow, cond, len(event_shape))
    return distrax.Transformed(base, distrax.Inverse(to_latent))
