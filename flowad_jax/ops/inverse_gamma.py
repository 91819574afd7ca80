"""SANFlow's objective on rows: a Gaussian whose variance has an inverse-gamma distribution.

Kim, Baik, Kim: "SANFlow: Semantic-Aware Normalizing Flow for Anomaly Detection", NeurIPS 2023.
The latent z of a normal row is N(0, v I) with v ~ IG(alpha, beta), where alpha and beta are
predicted; that of an anomalous row is N(mean, v I) with v at the mode, beta / (alpha + 1). Rows are
N positions of C channels; those with weight 0 are excluded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Bool, Float

from flowad_jax.ops import arrays

CROSS_ENTROPIES = ("per_dimension", "double_softmax")

Rows = Float[Array, " N"]


@dataclass(frozen=True)
class Objective:
    """Options of the objective, which `flowad_jax.methods.sanflow.build` explains."""

    prior_p: float = 11.0
    prior_level: float = 0.1
    anomalous_mean: float = 1.0
    variance_clip: float = 5.0
    log_alpha_clip: tuple[float, ...] = (1e-8, 1e4)
    cross_entropy_weight: float = 0.2
    log_variance_weight: float = 0.5
    stop_alpha: bool = True
    cross_entropy: str = "per_dimension"
    variance_floor: float = 1e-6

    @property
    def prior(self) -> tuple[float, float]:
        """Alpha and beta of the prior, an inverse gamma with mode ``prior_level``."""
        half = self.prior_p**2 / 2
        return half - 1, self.prior_level * half


class Posterior(NamedTuple):
    """Predicted inverse gamma of every row.

    Attributes:
      alpha: the shape parameter.
      log_beta: logarithm of the scale parameter; anomalous rows get no gradient.
      precision: alpha / beta, the mean of 1 / v; anomalous rows get no gradient.
      mode: of the variance, never with a gradient.
    """

    alpha: Rows
    log_beta: Rows
    precision: Rows
    mode: Rows


def posterior(
    settings: Objective, log_alpha: Rows, log_beta: Rows, anomalous: Bool[Array, " N"]
) -> Posterior:
    """The predicted distribution, without the gradients that the objective cuts."""
    log_alpha = _clip(settings, log_alpha)
    fixed_alpha, fixed_beta = (
        jnp.where(anomalous, jax.lax.stop_gradient(x), x) for x in (log_alpha, log_beta)
    )
    return Posterior(
        alpha=jnp.exp(fixed_alpha if settings.stop_alpha else log_alpha),
        log_beta=fixed_beta,
        precision=jnp.exp(fixed_alpha - fixed_beta),
        mode=jax.lax.stop_gradient(variance_mode(settings, log_alpha, log_beta)),
    )


def variance_mode(settings: Objective, log_alpha: Rows, log_beta: Rows) -> Rows:
    """Most likely variance: beta / (alpha + 1) within the bounds."""
    mode = jnp.exp(log_beta) / (jnp.exp(_clip(settings, log_alpha)) + 1.0)
    return jnp.clip(mode, settings.variance_floor, settings.variance_clip)


def _clip(settings: Objective, log_alpha: Rows) -> Rows:
    return jnp.clip(log_alpha, *map(math.log, settings.log_alpha_clip))


def normal_term(settings: Objective, z: Float[Array, "N C"], given: Posterior) -> Rows:
    """Expected ln N(z; 0, v I) over the predicted distribution of v.

    With ``E[ln v] = ln beta - digamma(alpha)`` and ``E[1 / v] = alpha / beta``.
    """
    channels = z.shape[-1]
    log_variance = given.log_beta - digamma(given.alpha)
    return (
        -0.5 * channels * arrays.LOG_2PI
        - settings.log_variance_weight * channels * log_variance
        - 0.5 * given.precision * jnp.sum(z**2, axis=-1)
    )


def gaussian_log_prob(z: Float[Array, "N C"], variance: Rows, mean: float = 0.0) -> Rows:
    """Logarithm of N(z; mean, variance I)."""
    squares = jnp.sum((z - mean) ** 2, axis=-1)
    return -0.5 * (z.shape[-1] * (arrays.LOG_2PI + jnp.log(variance)) + squares / variance)


def divergence(settings: Objective, given: Posterior) -> Rows:
    """KL divergence of the predicted inverse gamma from the prior."""
    alpha0, beta0 = settings.prior
    alpha = given.alpha
    return (
        (alpha - alpha0) * digamma(alpha)
        - gammaln(alpha)
        + math.lgamma(alpha0)
        + alpha0 * (given.log_beta - math.log(beta0))
        + beta0 * given.precision
        - alpha
    )


def cross_entropy(
    settings: Objective, normal: Rows, anomalous: Rows, truth: Bool[Array, " N"], channels: int
) -> Rows:
    """How badly the two log-likelihoods tell the kind of a row, in nats.

    ``"double_softmax"``, as released, takes the softmax of probabilities; their difference is at
    most 1, so that the result lies within 0.3133 and 1.3133 and is flat nearly everywhere.
    """
    logits = jnp.stack([normal, anomalous], axis=-1)
    if settings.cross_entropy == "double_softmax":
        logits = jax.nn.softmax(logits)
    else:
        logits = logits / channels
    normal_share, anomalous_share = jnp.moveaxis(jax.nn.log_softmax(logits), -1, 0)
    return -jnp.where(truth, anomalous_share, normal_share)


def row_mean(values: Rows, weight: Rows) -> Float[Array, ""]:
    """Weighted mean over the rows; 0 where all are excluded."""
    return jnp.sum(weight * values) / jnp.maximum(jnp.sum(weight), 1e-9)


class Terms(NamedTuple):
    """The objective of every row, to be maximised, and what it is made of."""

    divergence: Rows  # from the prior, in nats
    cross_entropy: Float[Array, ""]  # mean over the rows
    per_dimension: Rows


def terms(
    settings: Objective,
    z: Float[Array, "N C"],
    log_det: Rows,
    given: Posterior,
    anomalous: Bool[Array, " N"],
    weight: Rows,
) -> Terms:
    """Evaluates the objective."""
    channels = z.shape[-1]
    normal = normal_term(settings, z, given)
    other = gaussian_log_prob(z, given.mode, settings.anomalous_mean)
    log_prob = jnp.where(anomalous, other, normal) + log_det
    kl = divergence(settings, given)
    entropy = row_mean(cross_entropy(settings, normal, other, anomalous, channels), weight)
    # As released the entropy counts in nats of a whole row, where nothing is left of it.
    unit = channels if settings.cross_entropy == "double_softmax" else 1
    per_dimension = (log_prob - kl) / channels - settings.cross_entropy_weight * entropy / unit
    return Terms(kl, entropy, per_dimension)


def loss(
    settings: Objective,
    z: Float[Array, "N C"],
    log_det: Rows,
    log_alpha: Rows,
    log_beta: Rows,
    anomalous: Bool[Array, " N"],
    weight: Rows,
) -> tuple[Float[Array, ""], dict[str, jax.Array]]:
    """Training loss of latent rows, given the logarithms of the predicted alpha and beta.

    Returns:
      the weighted mean of ``-ln sigmoid(objective per dimension)``, and the scalars ``kl``,
      ``cross_entropy`` and ``variance``, the mean mode over normal rows.
    """
    given = posterior(settings, log_alpha, log_beta, anomalous)
    parts = terms(settings, z, log_det, given, anomalous, weight)
    metrics = {
        "kl": row_mean(parts.divergence, weight),
        "cross_entropy": parts.cross_entropy,
        "variance": row_mean(given.mode, weight * ~anomalous),
    }
    return row_mean(jax.nn.softplus(-parts.per_dimension), weight), metrics


def log_prob_per_dim(
    settings: Objective,
    z: Float[Array, "N C"],
    log_det: Rows,
    log_alpha: Rows,
    log_beta: Rows,
) -> Rows:
    """Log-likelihood per dimension for scoring: normal rows, variance at its mode."""
    variance = variance_mode(settings, log_alpha, log_beta)
    return (gaussian_log_prob(z, variance) + log_det) / z.shape[-1]
