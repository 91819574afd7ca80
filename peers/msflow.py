"""The peer of the MSFlow benchmark: flows, loss and training in PyTorch with FrEIA 0.2.

The coupling blocks are FrEIA's own; the fusion of the scales is written from the description of
the method. Modules carry the names under which published checkpoints store their tensors. Nothing
here imports JAX, so that a process with this peer holds PyTorch's memory and no other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from peers import freia

Maps = Sequence[torch.Tensor]


class ChannelNorm(nn.LayerNorm):
    """Normalises the channels of every position of a map (B, C, h, w)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns a map of the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A convolution that keeps the size of its map."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class ConvNet(nn.Module):
    """The sub-network of a parallel flow: convolution, norm, ReLU, convolution."""

    def __init__(self, wide: int, out: int):
        """The hidden layer is as wide as the input."""
        super().__init__()
        self.conv1 = conv3x3(wide, wide)
        self.ln = ChannelNorm(wide)
        self.conv2 = conv3x3(wide, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, wide, h, w) to (B, out, h, w)."""
        return self.conv2(functional.relu(self.ln(self.conv1(x))))


class CrossScale(nn.Module):
    """Adds to every scale what a narrow network sees in all scales at the smallest size."""

    def __init__(self, channels: Sequence[int]):
        """``channels`` of the halves that come in, shallow first."""
        super().__init__()
        self._channels = list(channels)
        total = sum(channels)
        self.conv1 = conv3x3(total, total // 4)
        self.norm = ChannelNorm(total // 4)
        self.conv2 = conv3x3(total // 4, total)

    def forward(self, maps: Maps) -> list[torch.Tensor]:
        """Returns maps of the shapes that came in."""
        smallest = (maps[-1].shape[2], maps[-1].shape[3])
        x = torch.cat([functional.adaptive_avg_pool2d(m, smallest) for m in maps], 1)
        x = functional.relu(self.norm(self.conv1(x)))
        x = functional.relu(self.conv2(x))
        return [
            m + functional.interpolate(part, m.shape[2:], mode="bilinear", align_corners=True)
            for m, part in zip(maps, x.split(self._channels, 1), strict=True)
        ]


class FusionNet(nn.Module):
    """Predicts log-scales and shifts for one half of all scales from the other half."""

    def __init__(self, channels: Sequence[int]):
        """``channels`` of one half of every scale; both halves have as many."""
        super().__init__()
        self.cross_convs = CrossScale(channels)
        self.conv_s = nn.ModuleList(conv3x3(c, c) for c in channels)
        self.conv_t = nn.ModuleList(conv3x3(c, c) for c in channels)

    def forward(self, maps: Maps) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Returns (log-scales before the clamp, shifts)."""
        fused = self.cross_convs(maps)
        log_scales = [conv(m) for conv, m in zip(self.conv_s, fused, strict=True)]
        shifts = [conv(m) for conv, m in zip(self.conv_t, fused, strict=True)]
        return log_scales, shifts


class FusionCoupling(nn.Module):
    """One coupling over the maps of all scales; first the one half moves, then the other."""

    def __init__(self, channels: Sequence[int], clamp: float):
        """``channels`` of every scale, all even."""
        super().__init__()
        self._clamp = clamp
        halves = [c // 2 for c in channels]
        self.subnet_1 = FusionNet(halves)
        self.subnet_2 = FusionNet(halves)

    def forward(self, maps: Maps) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Returns the latents and the log-determinant (B,)."""
        halves = [m.chunk(2, 1) for m in maps]
        first, second = [pair[0] for pair in halves], [pair[1] for pair in halves]
        first, log_det_first = self._move(first, *self.subnet_2(second))
        second, log_det_second = self._move(second, *self.subnet_1(first))
        joined = [torch.cat(pair, 1) for pair in zip(first, second, strict=True)]
        return [z.clamp(-1e6, 1e6) for z in joined], log_det_first + log_det_second

    def _move(self, maps: Maps, raw: Maps, shifts: Maps) -> tuple[list[torch.Tensor], torch.Tensor]:
        bound = 0.636 * self._clamp
        scales = [bound * torch.atan(s / self._clamp) for s in raw]
        moved = [m * s.exp() + t for m, s, t in zip(maps, scales, shifts, strict=True)]
        return moved, torch.stack([s.sum((1, 2, 3)) for s in scales]).sum(0)


class ChannelOrder(nn.Module):
    """A fixed random order of the channels."""

    perm: torch.Tensor

    def __init__(self, channels: int):
        """Draws from NumPy's global stream, as FrEIA does."""
        super().__init__()
        perm = torch.from_numpy(np.random.permutation(channels))
        self.register_buffer("perm", perm)
        self.register_buffer("perm_inv", perm.argsort())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reorders a map (B, C, h, w)."""
        return x[:, self.perm]


class FusionFlow(nn.Module):
    """A channel order per scale, then the coupling over all of them."""

    def __init__(self, channels: Sequence[int], clamp: float):
        """``channels`` of every scale, shallow first."""
        super().__init__()
        orders = [ChannelOrder(c) for c in channels]
        self.module_list = nn.ModuleList([*orders, FusionCoupling(channels, clamp)])

    def forward(self, maps: Maps) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Returns the latents and the log-determinant (B,)."""
        *orders, coupling = self.module_list
        return coupling([order(m) for order, m in zip(orders, maps, strict=True)])


class MSFlow(nn.Module):
    """The trained part of MSFlow: a conditional flow per scale and the fusion of all scales."""

    def __init__(
        self,
        channels: Sequence[int],
        condition: int = 64,
        blocks: Sequence[int] = (2, 5, 8),
        clamp: float = 1.9,
        seed: int = 0,
        version: str = "0.2",
    ):
        """Draws fresh flows for maps with ``channels``, shallow first; see `peers.freia`."""
        super().__init__()
        torch.manual_seed(seed)
        np.random.seed(seed)
        self._condition = condition
        self._codes: dict[tuple[int, int], torch.Tensor] = {}
        self.parallel_flows = nn.ModuleList(
            freia.chain((c, 1, 1), condition, count, clamp, "hard", ConvNet, version)
            for c, count in zip(channels, blocks, strict=True)
        )
        self.fusion_flow = FusionFlow(channels, clamp)

    def forward(self, maps: Maps) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Maps pooled features (B, C, h, w) to latents of the same shapes and log-dets (B,)."""
        self.place(maps)
        latents, log_dets = [], []
        for flow, feature_map in zip(self.parallel_flows, maps, strict=True):
            images, _, height, width = feature_map.shape
            code = self._codes[height, width]
            z, log_det = flow(feature_map, [code.expand(images, -1, -1, -1)])
            latents.append(z)
            log_dets.append(log_det)
        latents, log_det = self.fusion_flow(latents)
        return latents, torch.stack([*log_dets, log_det]).sum(0)

    def place(self, maps: Maps) -> None:
        """Keeps the position codes of such maps on their device."""
        for feature_map in maps:
            height, width = feature_map.shape[2:]
            if (height, width) not in self._codes:
                code = position_code(self._condition, height, width)
                self._codes[height, width] = code.to(feature_map)

    @torch.no_grad()
    def log_probs(self, maps: Maps) -> list[torch.Tensor]:
        """Likelihood maps (B, h, w) that the scores are made of: no constant, no log-det."""
        latents, _ = self(maps)
        return [-0.5 * (z**2).mean(1) for z in latents]


def position_code(features: int, height: int, width: int) -> torch.Tensor:
    """Sines and cosines of the column, then of the row: (1, features, height, width)."""
    half = features // 2
    frequency = torch.exp(torch.arange(0, half, 2) * (-math.log(10_000.0) / half))
    code = torch.zeros(features, height, width)
    for first, axis, size in ((0, 2, width), (half, 1, height)):
        angle = frequency[:, None] * torch.arange(size)
        waves = torch.stack([angle.sin(), angle.cos()], 1).reshape(half, size)
        code[first : first + half] = waves.unsqueeze(3 - axis)
    return code[None]


def negative_log_likelihood(latents: Maps, log_det: torch.Tensor) -> torch.Tensor:
    """Nats of every image (B,), summed over all dimensions, without the Gaussian's constant."""
    return 0.5 * torch.stack([(z**2).sum((1, 2, 3)) for z in latents]).sum(0) - log_det


def learning_rate(
    epoch: int,
    peak: float = 1e-4,
    epochs: int = 100,
    warmup_epochs: int = 12,
    milestones: Sequence[float] = (0.7, 0.9),
    gamma: float = 0.33,
) -> float:
    """Rate of an epoch: a linear warm-up from a tenth, then falls at shares of the epochs."""
    falls = sum(epoch >= share * epochs for share in milestones)
    return peak * (0.1 + 0.9 * min(epoch, warmup_epochs) / warmup_epochs) * gamma**falls


class Trainer:
    """Adam on gradients of bounded norm."""

    def __init__(self, model: MSFlow, clip_norm: float = 2.0):
        """Trains all of ``model``."""
        self._model, self._clip_norm = model, clip_norm
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._adam = torch.optim.Adam(self._parameters)

    def step(self, maps: Maps, rate: float) -> float:
        """Takes one gradient step and returns the loss before it, in nats per image."""
        for section in self._adam.param_groups:
            section["lr"] = rate
        self._adam.zero_grad()
        loss = negative_log_likelihood(*self._model(maps)).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self._adam.step()
        return loss.item()
