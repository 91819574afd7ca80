"""The sub-network of SSNF, convolution and attention, each with a shortcut; and its loss.

Dropout is on while a module trains. Nothing here imports JAX.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import nn


class Attention(nn.Module):
    """Attention over the positions of a map, which carry a code; no projection behind it."""

    _sequence: torch.Tensor | None

    def __init__(self, channels: int, heads: int, parametrized: bool, drop: float = 0.0):
        """``parametrized`` names the normalised weights as newer PyTorch does."""
        super().__init__()
        self._channels, self._heads, self._drop = channels, heads, drop
        self.register_buffer("_sequence", None, persistent=False)
        linear = nn.Linear(channels, 3 * channels, bias=False)
        if parametrized:
            self.in_proj = nn.utils.parametrizations.weight_norm(linear)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the form that the authors use
                self.in_proj = nn.utils.weight_norm(linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, C, h, w) to the same shape."""
        images, channels, height, width = x.shape
        rows = x.flatten(2).transpose(1, 2) + self.place(x)
        parts = self.in_proj(rows).reshape(images, -1, 3, self._heads, channels // self._heads)
        key, value, query = parts.permute(2, 0, 3, 1, 4)
        drop = self._drop if self.training else 0.0
        out = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=drop)
        return out.permute(0, 1, 3, 2).reshape(images, channels, height, width)

    def place(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the code of the positions of a map (B, any, h, w), which is kept."""
        length = x.shape[2] * x.shape[3]
        if self._sequence is None or len(self._sequence) != length:
            self._sequence = _code(self._channels, length).to(x)
        return self._sequence


def _code(channels: int, length: int) -> torch.Tensor:
    count = channels // 2
    rates = torch.exp(torch.arange(count) * (-math.log(10_000.0) / max(1, count - 1)))
    angle = torch.arange(length)[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], 1)


class Convolution(nn.Module):
    """A 3x3 convolution and dropout of whole channels."""

    def __init__(self, channels: int, drop: float = 0.0):
        """Keeps the number of channels."""
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self._drop = nn.Dropout2d(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, C, h, w) to the same shape."""
        return self._drop(self.conv(x))


class ResidualNet(nn.Module):
    """1x1 convolution, convolution, attention, 1x1 convolution."""

    def __init__(
        self, wide: int, out: int, hidden: int, heads: int, parametrized: bool, drop: float = 0.0
    ):
        """``hidden`` channels inside."""
        super().__init__()
        self.gate1 = nn.Conv2d(wide, hidden, 1)
        self.conv = Convolution(hidden, drop)
        self.attn = Attention(hidden, heads, parametrized, drop)
        self.gate2 = nn.Conv2d(hidden, out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, wide, h, w) to (B, out, h, w)."""
        x = self.gate1(x)
        x = x + self.conv(x)
        return self.gate2(x + self.attn(x))


def negative_log_likelihood(z: torch.Tensor, log_det: torch.Tensor) -> torch.Tensor:
    """Nats (B,) of every image from its latent (B, C, h, w) and log-determinant (B,)."""
    constant = 0.5 * math.log(2 * math.pi) * z[0].numel()
    return 0.5 * (z**2).sum((1, 2, 3)) + constant - log_det


def contrast(nll: torch.Tensor, label: torch.Tensor, weight: float, cap: float) -> torch.Tensor:
    """Likelihood up for normal images, down for synthetic ones that still look normal.

    Args:
      nll: (N,) nats.
      label: (N,) 0 for normal, 1 for synthetic.
      weight: of the synthetic images; the normal ones have the rest, or all if none trains.
      cap: nats from which on a synthetic image does not train.
    """
    normal, seen = label == 0, nll.detach()
    least_likely = seen.masked_fill(~normal, -math.inf).max()
    kept = ~normal & (seen < cap) & (seen < least_likely)
    share = 1.0 - weight * kept.any().float()
    return share * _mean(nll, normal) - weight * _mean(nll, kept)


def normality(z: torch.Tensor) -> torch.Tensor:
    """Mean normal density (B, h, w) of the channels of a latent (B, C, h, w)."""
    return torch.exp(-0.5 * (z**2 + math.log(2 * math.pi))).mean(1)


def _mean(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return torch.where(rows, values, 0.0).sum() / rows.sum().clamp(min=1)
