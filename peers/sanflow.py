"""SANFlow's network that predicts the variance of pixels, its loss, and its likelihood.

Written from the formulas of the method, see docs/maths.md: the latent of a normal row is N(0, v I)
where v has a predicted inverse-gamma distribution, that of an anomalous row N(mean, v I) with v at
the mode. Nothing here imports JAX.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

LARGEST_VARIANCE = 5.0
ALPHA_BOUNDS = (1e-8, 1e4)


class VarianceNet(nn.Module):
    """A small denoiser: convolutions of 64 channels around a shortcut."""

    def __init__(self, width: int = 64):
        """Draws fresh weights."""
        super().__init__()
        self.layer1 = _conv(3, width)
        hidden = [
            part
            for _ in range(3)
            for part in (_conv(width, width), nn.BatchNorm2d(width), nn.ReLU())
        ]
        self.dncnn = nn.Sequential(*hidden)
        self.last_layer = _conv(width, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps images (B, 3, H, W) to the logarithms of alpha and beta (B, 2, H, W)."""
        first = functional.relu(self.layer1(image))
        return self.last_layer(self.dncnn(first) + first)


class Objective(NamedTuple):
    """Constants of the loss, named as in our recipes."""

    prior_p: float = 11.0
    prior_level: float = 0.1
    anomalous_mean: float = 1.0
    variance_clip: float = LARGEST_VARIANCE
    variance_floor: float = 1e-6
    log_alpha_clip: tuple[float, ...] = ALPHA_BOUNDS
    cross_entropy_weight: float = 0.2
    log_variance_weight: float = 0.5


def loss(
    settings: Objective,
    z: torch.Tensor,
    log_det: torch.Tensor,
    logs: torch.Tensor,
    anomalous: torch.Tensor,
) -> torch.Tensor:
    """Mean over rows of ``-ln sigmoid`` of the objective per dimension.

    Args:
      settings: the constants.
      z: latent rows (N, C).
      log_det: (N,).
      logs: logarithms of alpha and beta (N, 2), as predicted.
      anomalous: (N,) bool.
    """
    channels = z.shape[1]
    low, high = map(math.log, settings.log_alpha_clip)
    log_alpha, log_beta = logs[:, 0].clamp(low, high), logs[:, 1]
    mode = (log_beta.exp() / (log_alpha.exp() + 1)).detach()
    mode = mode.clamp(settings.variance_floor, settings.variance_clip)
    # Anomalous rows have no say in how the variance of normal ones is distributed.
    log_alpha, log_beta = (torch.where(anomalous, x.detach(), x) for x in (log_alpha, log_beta))
    alpha, precision = log_alpha.exp(), (log_alpha - log_beta).exp()
    log_variance = log_beta - torch.digamma(alpha)
    normal = -0.5 * (channels * math.log(2 * math.pi) + precision * (z**2).sum(1))
    normal = normal - settings.log_variance_weight * channels * log_variance
    other = gaussian(z - settings.anomalous_mean, mode)
    divergence = _divergence(settings, alpha, log_beta, precision)
    likelihoods = torch.stack([normal, other], 1) / channels
    entropy = functional.cross_entropy(likelihoods, anomalous.long())
    objective = torch.where(anomalous, other, normal) + log_det - divergence
    objective = objective / channels - settings.cross_entropy_weight * entropy
    return functional.softplus(-objective).mean()


def _divergence(
    settings: Objective, alpha: torch.Tensor, log_beta: torch.Tensor, precision: torch.Tensor
) -> torch.Tensor:
    """Of the predicted inverse gamma from the prior, whose mode is ``prior_level``: (N,) nats."""
    half = settings.prior_p**2 / 2
    alpha0, beta0 = half - 1, settings.prior_level * half
    return (
        (alpha - alpha0) * torch.digamma(alpha)
        - torch.lgamma(alpha)
        + math.lgamma(alpha0)
        + alpha0 * (log_beta - math.log(beta0))
        + beta0 * precision
        - alpha
    )


def gaussian(z: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Log-density (N,) of rows (N, C) under N(0, variance I)."""
    channels = z.shape[1]
    return -0.5 * (channels * (math.log(2 * math.pi) + variance.log()) + (z**2).sum(1) / variance)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def log_prob(
    z: torch.Tensor, log_det: torch.Tensor, logs: torch.Tensor, floor: float = 0.0
) -> torch.Tensor:
    """Log-likelihood per dimension (N,) under the most likely variance.

    Args:
      z: latent rows (N, C).
      log_det: (N,).
      logs: logarithms of alpha and beta (N, 2).
      floor: smallest variance.
    """
    low, high = map(math.log, ALPHA_BOUNDS)
    alpha, beta = logs[:, 0].clamp(low, high).exp(), logs[:, 1].exp()
    variance = (beta / (alpha + 1)).clamp(floor, LARGEST_VARIANCE)
    return (gaussian(z, variance) + log_det) / z.shape[1]


def corners(logs: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The top left pixel of every cell of (B, 2, H, W), as rows (B, h * w, 2)."""
    return functional.interpolate(logs, size, mode="nearest").flatten(2).transpose(1, 2)
