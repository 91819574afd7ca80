"""The loss of SSNF: a likelihood loss with synthetic anomalies as negative examples."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

POSITIVE_WEIGHTS = ("switch", "constant")


@dataclass(frozen=True)
class Contrast:
    """Likelihood up for normal images, down for those synthetic ones that still look normal.

    Attributes:
      negative_weight: w of the synthetic images.
      cap: bound on the negative log-likelihood of synthetic images that train, per dimension.
      positive_weight: one of `POSITIVE_WEIGHTS`.
    """

    negative_weight: float
    cap: float
    positive_weight: str = "switch"

    def __call__(
        self, nll: jax.Array, label: jax.Array, weight: jax.Array, dimensions: int
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Computes the loss of a batch (Chiu and Lai, as released).

        A synthetic image trains while it is likelier than the cap and than the least likely
        normal image of the batch: what is out already need not be driven further.

        Args:
          nll: (N,) negative log-likelihoods in nats.
          label: (N,) 0 for normal, 1 for synthetic.
          weight: (N,) 0 for rows that count for nothing, neither here nor there.
          dimensions: D of the latent.

        Returns:
          The loss in nats, and metrics: ``nll`` of the normal and ``nll_synthetic`` of all
          synthetic images per dimension, ``kept``, the share of the latter that trains. What is
          about no image at all is 0.
        """
        # Plain reductions over the global array: on several devices the filter sees the whole
        # batch, not the part of one device.
        normal, synthetic = (weight > 0) & (label == 0), (weight > 0) & (label == 1)
        seen = jax.lax.stop_gradient(nll)
        least_likely = jnp.max(jnp.where(normal, seen, -jnp.inf))
        kept = synthetic & (seen < self.cap * dimensions) & (seen < least_likely)
        positive = _mean(nll, normal)
        share = jnp.asarray(1.0 - self.negative_weight)
        if self.positive_weight == "switch":
            share = jnp.where(jnp.any(kept), share, 1.0)
        loss = share * positive - self.negative_weight * _mean(nll, kept)
        return loss, {
            "nll": positive / dimensions,
            "nll_synthetic": _mean(nll, synthetic) / dimensions,
            "kept": _mean(kept, synthetic),
        }


def _mean(values: jax.Array, rows: jax.Array) -> jax.Array:
    """Mean over some rows, 0 if there are none; not even their NaN passes from other rows."""
    return jnp.sum(jnp.where(rows, values, 0.0)) / jnp.maximum(jnp.sum(rows), 1)
