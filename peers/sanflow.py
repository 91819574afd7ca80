"""SANFlow's network that predicts the variance of pixels, and its likelihood when it scores."""

from __future__ import annotations

import math

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


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def log_prob(z: torch.Tensor, log_det: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
    """Log-likelihood per dimension (N,) under the most likely variance.

    Args:
      z: latent rows (N, C).
      log_det: (N,).
      logs: logarithms of alpha and beta (N, 2).
    """
    low, high = map(math.log, ALPHA_BOUNDS)
    alpha, beta = logs[:, 0].clamp(low, high).exp(), logs[:, 1].exp()
    variance = (beta / (alpha + 1)).clamp(max=LARGEST_VARIANCE)
    channels = z.shape[1]
    squares = (z**2).sum(1) / variance
    density = -0.5 * (channels * (math.log(2 * math.pi) + variance.log()) + squares)
    return (density + log_det) / channels


def corners(logs: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The top left pixel of every cell of (B, 2, H, W), as rows (B, h * w, 2)."""
    return functional.interpolate(logs, size, mode="nearest").flatten(2).transpose(1, 2)
