"""The sub-network of SSNF: convolution and attention, each with a shortcut."""

from __future__ import annotations

import math
import warnings

import torch
from torch import nn


class Attention(nn.Module):
    """Attention over the positions of a map, which carry a code; no projection behind it."""

    def __init__(self, channels: int, heads: int, parametrized: bool):
        """``parametrized`` names the normalised weights as newer PyTorch does."""
        super().__init__()
        self._heads = heads
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
        rows = x.flatten(2).transpose(1, 2) + _code(channels, height * width)
        parts = self.in_proj(rows).reshape(images, -1, 3, self._heads, channels // self._heads)
        key, value, query = parts.permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(query, key, value)
        return out.permute(0, 1, 3, 2).reshape(images, channels, height, width)


def _code(channels: int, length: int) -> torch.Tensor:
    count = channels // 2
    rates = torch.exp(torch.arange(count) * (-math.log(10_000.0) / max(1, count - 1)))
    angle = torch.arange(length)[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], 1)


class Convolution(nn.Module):
    """A 3x3 convolution; dropout behind it is off here."""

    def __init__(self, channels: int):
        """Keeps the number of channels."""
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, C, h, w) to the same shape."""
        return self.conv(x)


class ResidualNet(nn.Module):
    """1x1 convolution, convolution, attention, 1x1 convolution."""

    def __init__(self, wide: int, out: int, hidden: int, heads: int, parametrized: bool):
        """``hidden`` channels inside."""
        super().__init__()
        self.gate1 = nn.Conv2d(wide, hidden, 1)
        self.conv = Convolution(hidden)
        self.attn = Attention(hidden, heads, parametrized)
        self.gate2 = nn.Conv2d(hidden, out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, wide, h, w) to (B, out, h, w)."""
        x = self.gate1(x)
        x = x + self.conv(x)
        return self.gate2(x + self.attn(x))
