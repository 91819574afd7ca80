"""MSFlow and SSNF in PyTorch: flows that see whole feature maps (B, C, h, w)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from peers import freia, msflow, ssnf
from peers.steps import Called, Maps, Rows, Wrap


class MSFlow:
    """One flow over all scales; see `peers.systems.System`."""

    def __init__(
        self, channels: Sequence[int], method: Mapping[str, Any], version: str, wrap: Wrap
    ):
        """Draws a fresh flow."""
        options = (method["condition"], method["blocks"], method["clamp"])
        self._flow = msflow.MSFlow(channels, *options, version=version)
        self.module: nn.Module = self._flow
        self._loss = wrap(Called(self._flow, _msflow_loss))
        self._log_probs = wrap(Called(self._flow, _msflow_log_probs))

    def losses(self, maps: Maps, rows: Rows) -> Iterator[torch.Tensor]:
        """One."""
        del rows
        self._flow.place(maps)
        yield self._loss(*maps)

    def log_probs(self, maps: Maps, image: torch.Tensor) -> list[torch.Tensor]:
        """Minus half the mean squares."""
        del image
        self._flow.place(maps)
        return list(self._log_probs(*maps))


def _msflow_loss(flow: nn.Module, *maps: torch.Tensor) -> torch.Tensor:
    return msflow.negative_log_likelihood(*flow(maps)).mean()


def _msflow_log_probs(flow: nn.Module, *maps: torch.Tensor) -> list[torch.Tensor]:
    return [-0.5 * (z**2).mean(1) for z in flow(maps)[0]]


class SSNF:
    """A flow per scale, whose likelihoods add up; see `peers.systems.System`."""

    def __init__(
        self, channels: Sequence[int], method: Mapping[str, Any], version: str, wrap: Wrap
    ):
        """Draws fresh flows."""
        net = functools.partial(_net, method=method)
        options = 0, method["blocks"], method["clamp"], "hard", net, version
        self.flows = nn.ModuleList(freia.chain((count, 1, 1), *options) for count in channels)
        self.module: nn.Module = self.flows
        self._weight = method["negative_weight"]
        self._cap = method["negative_cap"] / method["cap_dimensions"]
        self._nll = [wrap(Called(flow, _nll)) for flow in self.flows]
        self._normality = [wrap(Called(flow, _normality)) for flow in self.flows]

    def losses(self, maps: Maps, rows: Rows) -> Iterator[torch.Tensor]:
        """One, of normal images and what synthesis made of them."""
        self._place(maps)
        terms = [nll(x) for nll, x in zip(self._nll, maps, strict=True)]
        dimensions = sum(x[0].numel() for x in maps)
        nll = torch.stack(terms).sum(0)
        yield ssnf.contrast(nll, rows.label, self._weight, self._cap * dimensions)

    def log_probs(self, maps: Maps, image: torch.Tensor) -> list[torch.Tensor]:
        """Mean densities."""
        del image
        self._place(maps)
        return [normality(x) for normality, x in zip(self._normality, maps, strict=True)]

    def _place(self, maps: Maps) -> None:
        """Makes position codes where they are used, outside of what is compiled."""
        for flow, feature_map in zip(self.flows, maps, strict=True):
            for part in flow.modules():
                if isinstance(part, ssnf.Attention):
                    part.place(feature_map)


def _net(wide: int, out: int, method: Mapping[str, Any]) -> nn.Module:
    options = method["hidden"], method["heads"]
    return ssnf.ResidualNet(wide, out, *options, parametrized=True, drop=method["drop"])


def _nll(flow: nn.Module, feature_map: torch.Tensor) -> torch.Tensor:
    return ssnf.negative_log_likelihood(*flow(feature_map))


def _normality(flow: nn.Module, feature_map: torch.Tensor) -> torch.Tensor:
    return ssnf.normality(flow(feature_map)[0])
